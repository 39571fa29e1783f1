/* From a user's text to the tokens that a model reads: as it is, or as the first message of a conversation.
 *
 *     const ChatTemplate *chat;
 *     TokenList tokens = {0};
 *     if (prompt_chat_template(&vocabulary, NULL, &chat, &error) < 0) …
 *     if (prompt_encode(&session, chat, NULL, sv("Why is the sky blue?"), &tokens, &error) < 0) …
 */
#ifndef STOWKV_PROMPT_H
#define STOWKV_PROMPT_H

#include "session/session.h"

/* The chat template called `name`; where that is NULL, the checkpoint's own. An error where there is no such template,
 * or the checkpoint's is missing or not known here. */
int prompt_chat_template(const Vocabulary *vocabulary, const char *name, const ChatTemplate **out, Error *error);

/* Appends the tokens of a prompt. chat NULL: BOS, where the model's rule puts it or there is nothing else, and the
 * text; ERROR_ARGUMENT where there is neither text nor BOS. Else the system message
 * (`system`, or the checkpoint's own where that is NULL), then the text as the user's message. */
int prompt_encode(const Session *session, const ChatTemplate *chat, const char *system, StringView text,
                  TokenList *tokens, Error *error);

#endif
