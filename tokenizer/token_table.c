/* See token_table.h. Linear probing at a load of at most one half. */
#include "tokenizer/token_table.h"

#include <stdlib.h>
#include <xxhash.h>

/* The slot that holds `token`, or the empty one where it belongs. */
static TokenSlot *find_slot(const TokenTable *table, StringView token, uint32_t *tag) {
    uint64_t hash = XXH3_64bits(token.bytes, token.length);
    *tag = (uint32_t)(hash >> 32);
    for (size_t i = hash & table->mask;; i = (i + 1) & table->mask) {
        TokenSlot *slot = &table->slots[i];
        if (slot->id_plus == 0 || (slot->tag == *tag && sv_equal(table->tokens[slot->id_plus - 1], token)))
            return slot;
    }
}

int token_table_build(TokenTable *table, const StringView *tokens, size_t n_tokens, Error *error) {
    size_t n_slots = 16;
    while (n_slots / 2 < n_tokens)
        n_slots *= 2;
    *table = (TokenTable){tokens, calloc(n_slots, sizeof *table->slots), n_slots - 1};
    if (table->slots == NULL)
        return error_memory(error, "the token table", n_slots * sizeof *table->slots);
    for (size_t id = 0; id < n_tokens; id++) {
        if (tokens[id].length == 0)
            continue;
        uint32_t tag;
        TokenSlot *slot = find_slot(table, tokens[id], &tag);
        if (slot->id_plus != 0) {
            size_t first = slot->id_plus - 1;
            token_table_free(table);
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: tokens %zu and %zu are both spelled '%.*s'; convert the checkpoint again",
                             first, id, SV_ARGS(tokens[id]));
        }
        *slot = (TokenSlot){tag, (uint32_t)id + 1};
    }
    return 0;
}

int32_t token_table_find(const TokenTable *table, StringView token) {
    uint32_t tag;
    return (int32_t)find_slot(table, token, &tag)->id_plus - 1;
}

void token_table_free(TokenTable *table) {
    free(table->slots);
    *table = (TokenTable){0};
}
