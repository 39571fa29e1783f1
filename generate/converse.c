/* See converse.h. */
#include "generate/converse.h"

#include "base/text_file.h"
#include "session/signals.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Dialogue {
    Answer *answer;
    Conversation talk;
    TokenList tokens; /* of the turn at hand */
    char *line;       /* the last one of stdin */
    size_t capacity, n_lines;
} Dialogue;

/* A line from the user without its newline: 1; 0 at the end of input or after Ctrl-C. */
static int read_line(Dialogue *dialogue, StringView *out, Error *error) {
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "> ");
    ssize_t length = getline(&dialogue->line, &dialogue->capacity, stdin);
    if (length < 0 && ferror(stdin) && errno != EINTR)
        return error_set(error, ERROR_IO, "stdin: %s; give one message a line", strerror(errno));
    if (length < 0)
        return 0;
    char *line = dialogue->line;
    if (dialogue->n_lines++ == 0 && text_check_encoding((StringView){line, (size_t)length}, "stdin", error) < 0)
        return error->code;
    if (length > 0 && line[length - 1] == '\n')
        length--;
    *out = text_clean_line(line, (size_t)length);
    prompt_note_invalid(*out, "the message");
    return 1;
}

static int take_turn(Dialogue *dialogue, StringView text, Error *error) {
    Answer *answer = dialogue->answer;
    Generation *run = &answer->run;
    size_t n_generated = run->generated.count, text_length = run->text_length;
    bool rereads;
    if (conversation_ask(&dialogue->talk, answer->session, &answer->prompt, text, &dialogue->tokens, &rereads, error) <
        0)
        return error->code;
    if (rereads)
        fprintf(stderr, "note: the chat template tells earlier turns in other tokens than were generated (a thought, a "
                        "stop text, white space); the conversation is read again\n");
    if (answer_tokens(answer, &dialogue->tokens, error) < 0 ||
        conversation_answered(&dialogue->talk, run, n_generated, text_length, error) < 0)
        return error->code;
    return generation_say(run, sv("\n"), error);
}

int converse(Answer *answer, StringView first, Error *error) {
    Dialogue dialogue = {.answer = answer};
    StringView text = first;
    int status = first.length > 0 ? 1 : read_line(&dialogue, &text, error);
    while (status > 0 && !program_interrupted) {
        status = text.length > 0 ? take_turn(&dialogue, text, error) : 0;
        if (status == 0)
            status = read_line(&dialogue, &text, error);
    }
    free(dialogue.line);
    token_list_free(&dialogue.tokens);
    conversation_free(&dialogue.talk);
    return status < 0 ? status : 0;
}
