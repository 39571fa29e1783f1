/* See merge_table.h. Linear probing at a load of at most one half. */
#include "tokenizer/merge_table.h"

#include <stdlib.h>

/* The slot that holds the pair, or the empty one where it belongs. */
static Merge *find_slot(const MergeTable *table, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t hash = key * 0x9E3779B97F4A7C15u; /* Fibonacci hashing: the upper bits are well mixed */
    for (size_t i = (hash >> 32) & table->mask;; i = (i + 1) & table->mask) {
        Merge *slot = &table->slots[i];
        if (slot->joined < 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

const Merge *merge_table_find(const MergeTable *table, int32_t left, int32_t right) {
    const Merge *slot = find_slot(table, left, right);
    return slot->joined < 0 ? NULL : slot;
}

/* Splits "left right" and looks the three tokens up. `joined` has room for the merge's text. */
static int parse_merge(StringView text, size_t rank, const TokenTable *tokens, char *joined, Merge *merge,
                       Error *error) {
    size_t space = text.length > 1 ? sv_find(text, sv(" "), 1) : text.length;
    if (space + 1 >= text.length)
        return error_set(error, ERROR_FORMAT,
                         "vocabulary: merge %zu is '%.*s', not two tokens with a space between; convert the "
                         "checkpoint again",
                         rank, SV_ARGS(text));
    StringView left = {text.bytes, space};
    StringView right = {text.bytes + space + 1, text.length - space - 1};
    memcpy(joined, left.bytes, left.length);
    memcpy(joined + left.length, right.bytes, right.length);
    StringView both = {joined, left.length + right.length};
    *merge = (Merge){token_table_find(tokens, left), token_table_find(tokens, right), token_table_find(tokens, both),
                     (uint32_t)rank};
    StringView missing = merge->left < 0 ? left : merge->right < 0 ? right : both;
    if (merge->left < 0 || merge->right < 0 || merge->joined < 0)
        return error_set(error, ERROR_FORMAT,
                         "vocabulary: merge %zu needs the token '%.*s', which does not exist; tokens and merges must "
                         "come from one tokenizer: convert the checkpoint again",
                         rank, SV_ARGS(missing));
    return 0;
}

static int fill(MergeTable *table, const Vocabulary *vocabulary, const TokenTable *tokens, char *joined, Error *error) {
    for (size_t i = 0; i < vocabulary->n_merges; i++) {
        Merge merge;
        int status = parse_merge(vocabulary->merges[i], i, tokens, joined, &merge, error);
        if (status < 0)
            return status;
        /* Of two ranks for one pair the later counts, as in Hugging Face's tokenizers. */
        *find_slot(table, merge.left, merge.right) = merge;
    }
    return 0;
}

int merge_table_build(MergeTable *table, const Vocabulary *vocabulary, const TokenTable *tokens, Error *error) {
    size_t n_slots = 16, longest = 0;
    while (n_slots / 2 < vocabulary->n_merges)
        n_slots *= 2;
    for (size_t i = 0; i < vocabulary->n_merges; i++)
        if (vocabulary->merges[i].length > longest)
            longest = vocabulary->merges[i].length;
    char *joined = malloc(longest + 1);
    *table = (MergeTable){malloc(n_slots * sizeof *table->slots), n_slots - 1};
    int status = 0;
    if (table->slots == NULL || joined == NULL) {
        status = error_memory(error, "the merge table", n_slots * sizeof *table->slots);
    } else {
        for (size_t i = 0; i < n_slots; i++)
            table->slots[i].joined = -1;
        status = fill(table, vocabulary, tokens, joined, error);
    }
    free(joined);
    if (status < 0)
        merge_table_free(table);
    return status;
}

void merge_table_free(MergeTable *table) {
    free(table->slots);
    *table = (MergeTable){0};
}
