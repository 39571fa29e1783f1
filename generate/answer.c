/* See answer.h. */
#include "generate/answer.h"

#include "session/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Not through stdio, which drops text when Ctrl-C ends its wait for the reader. */
int answer_print(const Answer *answer, StringView text, Error *error) {
    if (!answer->prints)
        return 0;
    for (size_t done = 0; done < text.length;) {
        ssize_t written = write(STDOUT_FILENO, text.bytes + done, text.length - done);
        if (written >= 0)
            done += (size_t)written;
        else if (errno != EINTR)
            return error_set(error, ERROR_IO, "stdout: %s; the text is lost from here on", strerror(errno));
    }
    return 0;
}

static int show_text(void *user, StringView text, Error *error) {
    const Answer *answer = user;
    progress_show(&answer->progress, answer->run.generated.count, "");
    return answer_print(answer, text, error);
}

static void show_reading(void *user, size_t n_read, size_t n_prompt) {
    const Answer *answer = user;
    (void)n_prompt;
    progress_show(&answer->progress, n_read, "");
}

int answer_begin(Answer *answer, const KvPolicy *policy, Error *error) {
    generation_free(&answer->run);
    answer->run = (Generation){.session = answer->session,
                               .sampler = answer->sampler,
                               .user = answer,
                               .on_text = show_text,
                               .on_progress = show_reading,
                               .interrupted = &program_interrupted};
    sampler_reset(answer->sampler);
    if (session_set_policy(answer->session, answer->options, policy, error) < 0)
        return error->code;
    if (answer->reuse == NULL)
        return 0;
    answer->run.reuse = answer->reuse;
    return prefix_reuse_attach(answer->reuse, answer->session, error);
}

void answer_begin_unprinted(Answer *answer) {
    Generation *run = &answer->run;
    generation_free(run);
    *run = (Generation){
        .session = run->session, .sampler = run->sampler, .reuse = run->reuse, .interrupted = &program_interrupted};
    sampler_reset(answer->sampler);
    context_clear(&answer->session->context);
}

static void tell_cut(const Answer *answer) {
    const Generation *run = &answer->run;
    char cure[CONTEXT_CURE_TEXT];
    if (run->end == END_CONTEXT_FULL && answer->tells_cuts)
        fprintf(stderr, "%snote: the context of %zu tokens is full, the answer is cut; %s\n",
                isatty(STDOUT_FILENO) ? "\n" : "", run->session->context.n_ctx, generation_context_cure(run, cure));
}

int answer_tokens(Answer *answer, const TokenList *tokens, Error *error) {
    bool is_long = tokens->count > DEFAULT_BATCH;
    answer->progress = progress_begin("reading the prompt", is_long ? tokens->count : 0, "tokens");
    int status = generation_read(&answer->run, tokens->ids, tokens->count, error);
    progress_end(&answer->progress);
    if (status < 0)
        return status;
    answer->progress = progress_begin("generating", answer->is_seen ? 0 : answer->generation.max_new_tokens, "tokens");
    status = generation_continue(&answer->run, &answer->generation, error);
    progress_end(&answer->progress);
    if (status == 0)
        tell_cut(answer);
    return status;
}

int answer_prompt(Answer *answer, StringView prompt, Error *error) {
    TokenList tokens = {0};
    int status = prompt_encode(answer->session, &answer->prompt, prompt, &tokens, error);
    if (status == 0)
        status = answer_tokens(answer, &tokens, error);
    token_list_free(&tokens);
    return status;
}

void answer_free(Answer *answer) {
    generation_free(&answer->run);
}
