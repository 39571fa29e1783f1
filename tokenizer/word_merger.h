/* The merges of one word: a linked list of symbols, and a binary heap of the merges that neighbours could make, best
 * rank first, leftmost of equals. Memory grows to the longest word.
 *
 *     WordMerger merger = {0};
 *     if (word_merger_start(&merger, n_bytes, &error) < 0) …
 *     word_merger_add(&merger, id, 1);                             // for each symbol that the word is made of
 *     word_merger_finish(&merger, &merges, &tokens, &error);      // appends what is left when all is merged
 *     word_merger_free(&merger);
 */
#ifndef STOWKV_WORD_MERGER_H
#define STOWKV_WORD_MERGER_H

#include "tokenizer/merge_table.h"
#include "tokenizer/token_list.h"

typedef struct Symbol {
    int32_t id;
    int32_t previous, next; /* indices, -1 at the ends */
    int32_t n_bytes;        /* 0: merged into its left neighbour */
} Symbol;

typedef struct Candidate {
    uint64_t priority; /* rank << 32 | index of the left symbol: smallest first */
    int32_t joined;    /* id of the token that the two become */
    int32_t n_bytes;   /* of both together; a candidate is stale once its symbols have another length */
} Candidate;

typedef struct WordMerger {
    Symbol *symbols; /* (n) */
    Candidate *heap; /* (n_heap) */
    size_t n, n_heap, capacity;
} WordMerger;

/* Begins a word that has at most `n_bytes` symbols. */
int word_merger_start(WordMerger *merger, size_t n_bytes, Error *error);

/* A further symbol of n_bytes > 0. */
void word_merger_add(WordMerger *merger, int32_t id, int32_t n_bytes);

int word_merger_finish(WordMerger *merger, const MergeTable *merges, TokenList *out, Error *error);
void word_merger_free(WordMerger *merger);

#endif
