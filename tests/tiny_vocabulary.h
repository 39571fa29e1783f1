/* A small byte-level BPE vocabulary in memory, and what tests ask of a tokenizer: the ids of a text, the text of ids.
 */
#ifndef STOWKV_TINY_VOCABULARY_H
#define STOWKV_TINY_VOCABULARY_H

#include "tokenizer/tokenizer.h"

/* The 94 printable characters, 'Ġ' for the space, a few merges and added tokens; tests change fields as they need. */
typedef struct Tiny {
    char characters[95][2];
    StringView tokens[110], merges[8];
    int32_t types[110];
    Vocabulary vocabulary;
} Tiny;

enum { TINY_AB = 95, TINY_BC, TINY_ABC, TINY_CONTROL, TINY_ADDED, TINY_LONGER, TINY_COUNT };

void tiny_start(Tiny *tiny);

/* Opening must fail with `code` and a message that holds `part` and a cure. */
void expect_refused(const Vocabulary *vocabulary, int code, const char *part);

void expect_ids(const Tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *ids, size_t n);

#define EXPECT_IDS(tokenizer, text, flags, ...)                                                                        \
    expect_ids(tokenizer, text, flags, (const int32_t[]){__VA_ARGS__},                                                 \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* Streams ids to text, a token at a time; what comes out of each step must be valid UTF-8. The caller frees .bytes. */
StringView stream_all(const Tokenizer *tokenizer, const TokenList *tokens);

#endif
