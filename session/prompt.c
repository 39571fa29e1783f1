/* See prompt.h. */
#include "session/prompt.h"

#include "base/array.h"
#include "tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>

void prompt_note_invalid(StringView text, const char *name) {
    size_t at = utf8_first_invalid(text);
    if (at < text.length)
        fprintf(stderr, "note: %s: byte %zu is not UTF-8, and read as U+FFFD; convert the text to UTF-8\n", name, at);
}

/* BOS that the text spells itself is not put there twice; one that makes no token starts from BOS, also where a model's
 * rule puts none in front of others. */
static int encode_text(const Session *session, const PromptOptions *options, StringView text, TokenList *tokens,
                       Error *error) {
    const Tokenizer *tokenizer = session->tokenizer;
    int32_t bos = tokenizer_bos(tokenizer);
    size_t before = tokens->count;
    unsigned flags = options->parse_special ? TOKENIZE_PARSE_SPECIAL : 0;
    if (tokenizer_encode(tokenizer, text, flags, tokens, error) < 0)
        return error->code;
    if (tokens->count > before && tokens->ids[before] == bos)
        return 0;
    tokens->count = before;
    if (tokenizer_encode(tokenizer, text, flags | TOKENIZE_ADD_BOS, tokens, error) < 0)
        return error->code;
    if (tokens->count > before)
        return 0;
    if (bos < 0)
        return error_set(error, ERROR_ARGUMENT,
                         "the prompt is empty, and the vocabulary has no BOS to start from; give some text");
    return token_list_append(tokens, bos, error);
}

int prompt_encode(const Session *session, const PromptOptions *options, StringView text, TokenList *tokens,
                  Error *error) {
    if (options->chat == NULL)
        return encode_text(session, options, text, tokens, error);
    bool has_system = options->system != NULL;
    ChatMessage messages[] = {{CHAT_SYSTEM, sv(has_system ? options->system : "")}, {CHAT_USER, text}};
    return chat_encode(options->chat, session->tokenizer, messages + !has_system, 1 + has_system, tokens, error);
}

static int say(Conversation *talk, ChatRole role, StringView text, Error *error) {
    ChatMessage *grown = array_for_one_more(talk->messages, talk->n_messages, sizeof *grown, "the conversation", error);
    char *copy = malloc(text.length + 1);
    talk->messages = grown != NULL ? grown : talk->messages;
    if (grown == NULL || copy == NULL) {
        free(copy);
        return error_memory(error, "the conversation", text.length);
    }
    if (text.length > 0)
        memcpy(copy, text.bytes, text.length);
    talk->messages[talk->n_messages++] = (ChatMessage){role, {copy, text.length}};
    return 0;
}

static int see(Conversation *talk, const int32_t *ids, size_t n_ids, Error *error) {
    for (size_t i = 0; i < n_ids; i++)
        if (token_list_append(&talk->seen, ids[i], error) < 0)
            return error->code;
    return 0;
}

/* The last generated token may not be in the cache yet: it comes first. */
static int add_unread(const Conversation *talk, const Session *session, TokenList *tokens, Error *error) {
    for (size_t i = session->context.cache.n_tokens; i < talk->seen.count; i++)
        if (token_list_append(tokens, talk->seen.ids[i], error) < 0)
            return error->code;
    return 0;
}

int conversation_ask(Conversation *talk, Session *session, const PromptOptions *options, StringView text,
                     TokenList *tokens, bool *rereads, Error *error) {
    TokenList next = {0};
    *rereads = false;
    tokens->count = 0;
    if (talk->n_messages == 0 && options->system != NULL && say(talk, CHAT_SYSTEM, sv(options->system), error) < 0)
        return error->code;
    int status = say(talk, CHAT_USER, text, error);
    if (status == 0 && talk->seen.count == 0)
        status = chat_encode(options->chat, session->tokenizer, talk->messages, talk->n_messages, &next, error);
    else if (status == 0)
        status = chat_encode_next(options->chat, session->tokenizer, talk->messages, talk->n_messages,
                                  talk->says_more ? NULL : &talk->seen, rereads, &next, error);
    if (status == 0 && *rereads) {
        talk->seen.count = 0;
        talk->says_more = false;
        context_clear(&session->context);
    }
    if (status == 0)
        status = add_unread(talk, session, tokens, error);
    for (size_t i = 0; i < next.count && status == 0; i++)
        status = token_list_append(tokens, next.ids[i], error);
    if (status == 0)
        status = see(talk, next.ids, next.count, error);
    token_list_free(&next);
    return status;
}

int conversation_answered(Conversation *talk, const Generation *run, size_t n_ids, size_t n_bytes, Error *error) {
    StringView text = {run->text_length > 0 ? run->text + n_bytes : "", run->text_length - n_bytes};
    talk->says_more = talk->says_more || run->end == END_STOP_STRING;
    for (size_t i = n_ids; i < run->generated.count; i++)
        if (tokenizer_type(run->session->tokenizer, run->generated.ids[i]) == TOKEN_CONTROL)
            talk->says_more = true;
    if (say(talk, CHAT_ASSISTANT, text, error) < 0)
        return error->code;
    return see(talk, run->generated.ids + n_ids, run->generated.count - n_ids, error);
}

void conversation_free(Conversation *talk) {
    for (size_t i = 0; i < talk->n_messages; i++)
        free((char *)talk->messages[i].content.bytes);
    free(talk->messages);
    token_list_free(&talk->seen);
    *talk = (Conversation){0};
}
