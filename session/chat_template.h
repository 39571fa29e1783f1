/* Chat templates: a conversation as the ids that a model reads. Whose template it is, the checkpoint's, a file's or one
 * of a few that have names, it is Jinja, and rendered (jinja/jinja.h): what cannot be rendered exactly is refused.
 *
 *     ChatTemplate *chat;
 *     if (chat_template_open(&chat, &vocabulary, NULL, NULL, &error) < 0) …
 *     ChatMessage messages[] = {{CHAT_USER, sv("What is the capital of France?")}};
 *     chat_encode(chat, tokenizer, messages, 1, &tokens, &error);                     // ends where the answer begins
 *     chat_template_free(chat);
 */
#ifndef STOWKV_CHAT_TEMPLATE_H
#define STOWKV_CHAT_TEMPLATE_H

#include "tokenizer/tokenizer.h"

typedef enum ChatRole { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } ChatRole;

typedef struct ChatMessage {
    ChatRole role;
    StringView content;
} ChatMessage;

typedef struct ChatTemplate ChatTemplate;

/* The template called `name`, or in the file of that path; where it is NULL, the vocabulary's own. date: "YYYY-MM-DD",
 * for templates that tell it; NULL: today. ERROR_USAGE where a name or date is none, else the file's or the template's
 * error. */
int chat_template_open(ChatTemplate **out, const Vocabulary *vocabulary, const char *name, const char *date,
                       Error *error);
void chat_template_free(ChatTemplate *chat); /* NULL is fine */

/* For programs that can do without: NULL in *out for the name "none", and where no name is given and the vocabulary has
 * no template. */
int chat_template_choose(ChatTemplate **out, const Vocabulary *vocabulary, const char *name, const char *date,
                         Error *error);

const char *chat_template_name(const ChatTemplate *chat); /* the name or path, or "checkpoint" */

/* Appends the ids of a conversation up to where the assistant's next answer begins: those of the rendered text, in
 * which special tokens come from the template's own markup alone. Message text that spells one stays text. BOS is there
 * where the template writes it. ERROR_ARGUMENT where the template refuses the conversation. */
int chat_encode(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages, size_t n_messages,
                TokenList *out, Error *error);

/* The same for a conversation of which `seen` was read and generated: all before its last message, the user's. Appends
 * what comes behind `seen`, so that nothing is read again: the rest of the rendered conversation's ids or, where only
 * its text goes on like the text seen (generated ids need not be those of their text), the ids of the rest. Templates
 * may also rewrite what was said (drop thoughts, trim). Then *rewrites is set and all ids are appended. */
int chat_encode_next(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages,
                     size_t n_messages, const TokenList *seen, bool *rewrites, TokenList *out, Error *error);

#endif
