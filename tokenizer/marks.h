/* Tokens whose names say that they are control tokens, and which of them end a text: end of turn, message or text, as
 * llama.cpp knows them by name, since files name one or two of theirs at most.
 *
 *     TokenMark mark = token_mark(sv("<|eom_id|>"), TOKEN_CONTROL);   // MARK_END
 */
#ifndef STOWKV_MARKS_H
#define STOWKV_MARKS_H

#include "tokenizer/vocabulary.h"

typedef enum TokenMark {
    MARK_NONE,
    MARK_CONTROL, /* a control token */
    MARK_END      /* a control token; generating it ends an answer */
} TokenMark;

/* `type` is the file's. Converters have stored some marks as normal or user-defined tokens: the best known names are
 * control tokens whatever the file says. Other names count only where it says control or user defined: a vocabulary may
 * have words that look like them. */
TokenMark token_mark(StringView token, TokenType type);

#endif
