/* From a token's spelling to its id: an open-addressing hash table over a vocabulary's own strings, 8 bytes a slot.
 *
 *     TokenTable table;
 *     if (token_table_build(&table, tokens, n_tokens, &error) < 0) …
 *     int32_t id = token_table_find(&table, sv("Ġthe"));
 *     token_table_free(&table);
 */
#ifndef STOWKV_TOKEN_TABLE_H
#define STOWKV_TOKEN_TABLE_H

#include "base/error.h"
#include "base/string_view.h"

#include <stdint.h>

typedef struct TokenSlot {
    uint32_t tag;     /* upper half of the hash: tells most misses without a string comparison */
    uint32_t id_plus; /* id + 1; 0: empty */
} TokenSlot;

typedef struct TokenTable {
    const StringView *tokens; /* the caller's */
    TokenSlot *slots;
    size_t mask; /* number of slots - 1 */
} TokenTable;

/* Empty strings are left out. Two tokens with one spelling are ERROR_FORMAT. `tokens` must outlive the table. */
int token_table_build(TokenTable *table, const StringView *tokens, size_t n_tokens, Error *error);

/* The id, or -1. */
int32_t token_table_find(const TokenTable *table, StringView token);

void token_table_free(TokenTable *table);

#endif
