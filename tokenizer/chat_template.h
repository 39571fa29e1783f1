/* Chat templates: ChatML, Llama 2, Llama 3, Mistral, Zephyr. A template is a table row that says how a message of each
 * role is wrapped; the Jinja text that a checkpoint carries is only recognised, never run.
 *
 *     const ChatTemplate *chat = chat_template_recognise(vocabulary.chat_template);   // or chat_template_named
 *     ChatMessage messages[] = {{CHAT_USER, sv("What is the capital of France?")}};
 *     chat_encode(chat, tokenizer, messages, 1, &tokens, &error);                     // ends where the answer begins
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

/* The template that the Jinja text is a form of, or NULL. Mistral has published three forms that differ in spaces:
 * "mistral" is the form of 7B-Instruct v0.1 and v0.2, "mistral-v2" v0.2's later one, "mistral-v3" v0.3's. */
const ChatTemplate *chat_template_recognise(StringView jinja);

/* By name, one of chat_template_names(); NULL where there is none. */
const ChatTemplate *chat_template_named(StringView name);
const char *chat_template_name(const ChatTemplate *chat);
const char *chat_template_names(void); /* "chatml llama2 …", for messages */

/* The system message that the Jinja text itself adds to a conversation without one (SmolLM2's and Qwen2's do); empty
 * where there is none, or where it is written with escapes. The caller puts it first. A view of `jinja`. */
StringView chat_template_default_system(StringView jinja);

/* Appends the ids of a conversation, BOS included where the template has one, up to where the assistant's next answer
 * begins. Only the template's own markup becomes special tokens: message text that spells one stays text.
 * ERROR_ARGUMENT where the roles come in an order that the template has no form for. */
int chat_encode(const ChatTemplate *chat, const Tokenizer *tokenizer, const ChatMessage *messages, size_t n_messages,
                TokenList *out, Error *error);

/* Appends what follows a generated answer in a conversation: the answer's end mark (a generated one is not in the
 * cache), then the user's next message, up to where the next answer begins. So a conversation goes on from its cache:
 * nothing that was read or generated is read again. */
int chat_encode_next(const ChatTemplate *chat, const Tokenizer *tokenizer, StringView user, TokenList *out,
                     Error *error);

#endif
