/* See merge_table.h. Linear probing at a load of at most one half. */
#include "tokenizer/merge_table.h"

#include "base/array.h"
#include "base/checked.h"

#include <stdlib.h>

typedef struct MergeList {
    Merge *items; /* (n) */
    size_t n;
} MergeList;

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

/* The vocabulary's list, as ids. */
static int read_merges(MergeList *list, const Vocabulary *vocabulary, const TokenTable *tokens, Error *error) {
    size_t longest = 0;
    for (size_t i = 0; i < vocabulary->n_merges; i++)
        longest = at_least(vocabulary->merges[i].length, longest);
    char *joined = malloc(longest + 1);
    list->items = malloc((vocabulary->n_merges + 1) * sizeof *list->items);
    int status = joined == NULL || list->items == NULL
                     ? error_memory(error, "the merges", vocabulary->n_merges * sizeof *list->items)
                     : 0;
    for (size_t i = 0; i < vocabulary->n_merges && status == 0; i++)
        status = parse_merge(vocabulary->merges[i], i, tokens, joined, &list->items[list->n++], error);
    free(joined);
    return status;
}

/* Every way in which a token falls into two, cut between characters of the byte alphabet. */
static int find_merges(MergeList *list, const Vocabulary *vocabulary, const TokenTable *tokens, Error *error) {
    for (size_t id = 0; id < vocabulary->n_tokens; id++) {
        StringView token = vocabulary->tokens[id];
        if (vocabulary->types != NULL && vocabulary->types[id] != TOKEN_NORMAL)
            continue;
        for (size_t cut = 1; cut < token.length; cut++) {
            if (((unsigned char)token.bytes[cut] & 0xC0) == 0x80)
                continue;
            int32_t left = token_table_find(tokens, (StringView){token.bytes, cut});
            int32_t right = token_table_find(tokens, (StringView){token.bytes + cut, token.length - cut});
            if (left < 0 || right < 0)
                continue;
            Merge *items = array_for_one_more(list->items, list->n, sizeof *items, "the merges", error);
            if (items == NULL)
                return ERROR_MEMORY;
            list->items = items;
            items[list->n++] = (Merge){left, right, (int32_t)id, (uint32_t)id};
        }
    }
    return 0;
}

static int fill(MergeTable *table, const MergeList *list, Error *error) {
    size_t n_slots = 16;
    while (n_slots / 2 < list->n)
        n_slots *= 2;
    *table = (MergeTable){malloc(n_slots * sizeof *table->slots), n_slots - 1};
    if (table->slots == NULL)
        return error_memory(error, "the merge table", n_slots * sizeof *table->slots);
    for (size_t i = 0; i < n_slots; i++)
        table->slots[i].joined = -1;
    /* Of two ranks for one pair the later counts, as in Hugging Face's tokenizers. */
    for (size_t i = 0; i < list->n; i++)
        *find_slot(table, list->items[i].left, list->items[i].right) = list->items[i];
    return 0;
}

int merge_table_build(MergeTable *table, const Vocabulary *vocabulary, const TokenTable *tokens, Error *error) {
    MergeList list = {0};
    *table = (MergeTable){0};
    int status = vocabulary->merges_by_id ? find_merges(&list, vocabulary, tokens, error)
                                          : read_merges(&list, vocabulary, tokens, error);
    if (status == 0)
        status = fill(table, &list, error);
    free(list.items);
    return status;
}

void merge_table_free(MergeTable *table) {
    free(table->slots);
    *table = (MergeTable){0};
}
