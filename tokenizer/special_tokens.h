/* The tokens that are matched in a text before it is split into words: control tokens where the caller asks for them,
 * user-defined ("added") tokens always, the longest at each place first, as Hugging Face's tokenizers do.
 *
 *     size_t at = 0;
 *     const SpecialToken *token = special_tokens_find(&special, text, NULL, SPECIAL_USER_DEFINED, &at);   // NULL: no
 * more
 */
#ifndef STOWKV_SPECIAL_TOKENS_H
#define STOWKV_SPECIAL_TOKENS_H

#include "base/error.h"
#include "base/string_view.h"

#include <stdint.h>

enum { SPECIAL_CONTROL = 1, SPECIAL_USER_DEFINED = 2 };

typedef struct SpecialToken {
    StringView text; /* the vocabulary's */
    int32_t id;
    int class;      /* SPECIAL_CONTROL or SPECIAL_USER_DEFINED */
    uint8_t strips; /* TOKEN_STRIPS_* of vocabulary.h */
} SpecialToken;

typedef struct SpecialTokens {
    SpecialToken *items; /* (n) by first byte, then longest first */
    size_t n;
    size_t starts[257]; /* items with first byte b are [starts[b], starts[b + 1]) */
} SpecialTokens;

/* `special` starts as {0}; sort it after the last token and before a search. Tokens without text are left out. */
int special_tokens_add(SpecialTokens *special, SpecialToken token, Error *error);
void special_tokens_sort(SpecialTokens *special);
void special_tokens_free(SpecialTokens *special);

/* The first token of one of `classes` (a sum) in `text` at or after byte *at; its offset goes to *at. NULL: none.
 * plain: (text.length) or NULL; a byte where it is set is part of no control token. */
const SpecialToken *special_tokens_find(const SpecialTokens *special, StringView text, const unsigned char *plain,
                                        int classes, size_t *at);

#endif
