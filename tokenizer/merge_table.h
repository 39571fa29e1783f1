/* Byte-pair encoding's merges: from two neighbouring tokens to their rank (0 is merged first) and the token they
 * become.
 *
 *     MergeTable merges;
 *     if (merge_table_build(&merges, &vocabulary, &token_table, &error) < 0) …
 *     const Merge *merge = merge_table_find(&merges, left, right);    // NULL: these two do not merge
 *     merge_table_free(&merges);
 */
#ifndef STOWKV_MERGE_TABLE_H
#define STOWKV_MERGE_TABLE_H

#include "base/error.h"
#include "tokenizer/token_table.h"
#include "tokenizer/vocabulary.h"

typedef struct Merge {
    int32_t left, right; /* token ids */
    int32_t joined;      /* the id of both, joined; -1 in an empty slot */
    uint32_t rank;       /* position in the vocabulary's list; the joined id where that is the rank */
} Merge;

typedef struct MergeTable {
    Merge *slots;
    size_t mask; /* number of slots - 1 */
} MergeTable;

/* ERROR_FORMAT where a merge is not "left right", or one of its three tokens does not exist. */
int merge_table_build(MergeTable *table, const Vocabulary *vocabulary, const TokenTable *tokens, Error *error);
const Merge *merge_table_find(const MergeTable *table, int32_t left, int32_t right);
void merge_table_free(MergeTable *table);

#endif
