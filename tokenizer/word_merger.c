/* See word_merger.h. */
#include "tokenizer/word_merger.h"

#include <stdlib.h>

static void heap_push(WordMerger *merger, Candidate candidate) {
    Candidate *heap = merger->heap;
    size_t i = merger->n_heap++;
    for (; i > 0 && candidate.priority < heap[(i - 1) / 2].priority; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = candidate;
}

static Candidate heap_pop(WordMerger *merger) {
    Candidate *heap = merger->heap, best = heap[0], last = heap[--merger->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < merger->n_heap && heap[child + 1].priority < heap[child].priority)
            child++;
        if (child >= merger->n_heap || last.priority <= heap[child].priority)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* Puts the merge of symbol `left` with its right neighbour on the heap, where there is one. */
static void consider(WordMerger *merger, const MergeTable *merges, int32_t left) {
    const Symbol *symbols = merger->symbols;
    if (left < 0 || symbols[left].next < 0)
        return;
    const Symbol *right = &symbols[symbols[left].next];
    const Merge *merge = merge_table_find(merges, symbols[left].id, right->id);
    if (merge != NULL)
        heap_push(merger, (Candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->joined,
                                      symbols[left].n_bytes + right->n_bytes});
}

static void merge_all(WordMerger *merger, const MergeTable *merges) {
    Symbol *symbols = merger->symbols;
    while (merger->n_heap > 0) {
        Candidate best = heap_pop(merger);
        int32_t left = (int32_t)(best.priority & UINT32_MAX), right = symbols[left].next;
        /* Symbols only grow: as long as the two together have their old length, they are the old two. */
        if (symbols[left].n_bytes == 0 || right < 0 || symbols[left].n_bytes + symbols[right].n_bytes != best.n_bytes)
            continue;
        symbols[left].id = best.joined;
        symbols[left].n_bytes = best.n_bytes;
        symbols[left].next = symbols[right].next;
        symbols[right].n_bytes = 0;
        if (symbols[left].next >= 0)
            symbols[symbols[left].next].previous = left;
        consider(merger, merges, symbols[left].previous);
        consider(merger, merges, left);
    }
}

/* A word of n symbols has at most 2n candidates at once: n - 1 at first, and each of the at most n - 1 merges takes one
 * off and puts two on. */
int word_merger_start(WordMerger *merger, size_t n_bytes, Error *error) {
    merger->n = merger->n_heap = 0;
    if (n_bytes <= merger->capacity)
        return 0;
    if (n_bytes > INT32_MAX / 4)
        return error_set(error, ERROR_ARGUMENT, "a text has a word of %zu bytes; give it in smaller parts", n_bytes);
    size_t capacity = n_bytes < 64 ? 64 : n_bytes + n_bytes / 2;
    Symbol *symbols = realloc(merger->symbols, capacity * sizeof *symbols);
    if (symbols != NULL)
        merger->symbols = symbols;
    Candidate *heap = realloc(merger->heap, 2 * capacity * sizeof *heap);
    if (heap != NULL)
        merger->heap = heap;
    if (symbols == NULL || heap == NULL)
        return error_memory(error, "a word's merges", capacity * (sizeof *symbols + 2 * sizeof *heap));
    merger->capacity = capacity;
    return 0;
}

void word_merger_add(WordMerger *merger, int32_t id, int32_t n_bytes) {
    int32_t n = (int32_t)merger->n++;
    if (n > 0)
        merger->symbols[n - 1].next = n;
    merger->symbols[n] = (Symbol){id, n - 1, -1, n_bytes};
}

int word_merger_finish(WordMerger *merger, const MergeTable *merges, TokenList *out, Error *error) {
    int status = 0;
    for (size_t i = 0; i + 1 < merger->n; i++)
        consider(merger, merges, (int32_t)i);
    merge_all(merger, merges);
    for (int32_t i = merger->n > 0 ? 0 : -1; i >= 0 && status == 0; i = merger->symbols[i].next)
        status = token_list_append(out, merger->symbols[i].id, error);
    return status;
}

void word_merger_free(WordMerger *merger) {
    free(merger->symbols);
    free(merger->heap);
    *merger = (WordMerger){0};
}
