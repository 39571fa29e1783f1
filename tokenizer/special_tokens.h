/* The tokens that are matched in a text before it is split into words: control tokens where the caller asks for them,
 * user-defined ("added") tokens always, the longest at each place first, as Hugging Face's tokenizers do.
 *
 *     SpecialPlace place = special_tokens_next(&special, text, NULL, SPECIAL_USER_DEFINED, at);
 *     if (place.token != NULL) …             // text before it ends at place.begin, and goes on at place.end
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

/* A token in a text, with the white space that it takes: bytes [begin, end). */
typedef struct SpecialPlace {
    const SpecialToken *token; /* NULL: none, and begin is the end of the text */
    size_t begin, end;
} SpecialPlace;

/* The first token of one of `classes` (a sum) in `text` at or after byte `at`. plain: (text.length) or NULL; a byte
 * where it is set is part of no control token. */
SpecialPlace special_tokens_next(const SpecialTokens *special, StringView text, const unsigned char *plain, int classes,
                                 size_t at);

#endif
