/* From a user's text to the tokens that a model reads: as it is, or as a message of a conversation.
 *
 *     PromptOptions options = {.chat = chat, .system = NULL};
 *     TokenList tokens = {0};
 *     if (prompt_encode(&session, &options, sv("Why is the sky blue?"), &tokens, &error) < 0) …
 *
 *     Conversation talk = {0};
 *     conversation_ask(&talk, &session, &options, sv("Hello"), &tokens, &error);     // the tokens to read now
 *     generation_read(…), generation_continue(…)
 *     conversation_answered(&talk, &run, 0, 0, &error);
 *     conversation_free(&talk);
 */
#ifndef STOWKV_PROMPT_H
#define STOWKV_PROMPT_H

#include "session/chat_template.h"
#include "session/generation.h"

typedef struct PromptOptions {
    const ChatTemplate *chat; /* NULL: the text as it is, with BOS where the model's rule puts it */
    const char *system;       /* the first message; NULL: none but the template's own */
    bool parse_special;       /* without a template: text that spells a special token is that token */
} PromptOptions;

/* What is not UTF-8 is read as U+FFFD, which hardly anybody wants: a note on stderr where `name` has such bytes. */
void prompt_note_invalid(StringView text, const char *name);

/* Appends the tokens of a prompt. BOS that it spells itself is not put there twice; ERROR_ARGUMENT where there is
 * neither text nor BOS. */
int prompt_encode(const Session *session, const PromptOptions *options, StringView text, TokenList *tokens,
                  Error *error);

/* A conversation that goes on from its cache. */
typedef struct Conversation {
    ChatMessage *messages; /* with texts of its own */
    size_t n_messages;
    TokenList seen; /* all that was read and generated, in order */
    bool says_more; /* what was generated than the answers do: a stop text, special tokens */
} Conversation;

/* Replaces `tokens` by those to read for the user's next message. Where the cache is not what the template makes of the
 * conversation (it drops thoughts of earlier turns, say, or an answer ended at a stop text), they are the whole
 * conversation's, the session's context is emptied for them, and *rereads is set. */
int conversation_ask(Conversation *talk, Session *session, const PromptOptions *options, StringView text,
                     TokenList *tokens, bool *rereads, Error *error);

/* The answer is what `run` has generated behind its first n_ids ids and n_bytes of text. */
int conversation_answered(Conversation *talk, const Generation *run, size_t n_ids, size_t n_bytes, Error *error);
void conversation_free(Conversation *talk);

#endif
