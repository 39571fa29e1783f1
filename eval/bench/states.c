/* See states.h. */
#include "eval/bench/states.h"

#include <stdlib.h>

/* A piece of a state and its bytes. */
typedef struct Kept {
    KvPiece piece;
    uint8_t *bytes; /* (piece.size_bytes) */
    bool owned;     /* by this state, not by one before */
} Kept;

typedef struct CacheState {
    size_t n_tokens;
    Kept *kept; /* (count) */
    size_t count;
} CacheState;

static bool is_same(const KvPiece *a, const KvPiece *b) {
    return a->rule == b->rule && a->local == b->local && a->store == b->store && a->begin == b->begin &&
           a->end == b->end && a->n_decisive == b->n_decisive;
}

/* The bytes of the same piece of the state before; NULL: it had none. What is in a piece follows from tokens and place,
 * and a benchmark's tokens from their positions. */
static uint8_t *shared_bytes(const CacheState *before, const KvPiece *piece) {
    for (size_t i = 0; before != NULL && i < before->count; i++)
        if (is_same(&before->kept[i].piece, piece))
            return before->kept[i].bytes;
    return NULL;
}

static int keep_piece(const CacheState *before, const KvCache *cache, const KvMemory *memory, const KvPiece *piece,
                      Kept *out, Error *error) {
    *out = (Kept){.piece = *piece, .bytes = shared_bytes(before, piece)};
    if (out->bytes != NULL)
        return 0;
    out->bytes = malloc(piece->size_bytes);
    out->owned = out->bytes != NULL;
    if (out->bytes == NULL)
        return error_memory(error, "the cache's state at a depth", piece->size_bytes);
    return kv_piece_save(cache, piece, memory, out->bytes, error);
}

int cache_states_keep(CacheStates *states, const KvCache *cache, const KvMemory *memory, Error *error) {
    size_t n_pieces = kv_pieces(&cache->layout, cache->n_tokens, NULL);
    CacheState *grown = realloc(states->states, (states->count + 1) * sizeof *grown), *state;
    KvPiece *pieces = calloc(n_pieces + 1, sizeof *pieces); /* at depth 0 there are none */
    Kept *kept = calloc(n_pieces + 1, sizeof *kept);
    states->states = grown != NULL ? grown : states->states;
    if (grown == NULL || pieces == NULL || kept == NULL) {
        free(pieces);
        free(kept);
        return error_memory(error, "the cache's state at a depth", n_pieces * (sizeof *pieces + sizeof *kept));
    }
    state = &grown[states->count++];
    *state = (CacheState){cache->n_tokens, kept, n_pieces};
    kv_pieces(&cache->layout, cache->n_tokens, pieces);
    int status = 0;
    for (size_t i = 0; i < n_pieces && status == 0; i++)
        status = keep_piece(states->count > 1 ? state - 1 : NULL, cache, memory, &pieces[i], &kept[i], error);
    free(pieces);
    return status;
}

int cache_states_restore(const CacheStates *states, KvCache *cache, const KvMemory *memory, size_t n_tokens,
                         Error *error) {
    const CacheState *state = states->states;
    while (state->n_tokens != n_tokens)
        state++;
    for (size_t i = 0; i < state->count; i++)
        if (kv_piece_load(cache, n_tokens, &state->kept[i].piece, memory, state->kept[i].bytes, error) < 0)
            return error->code;
    kvcache_resume(cache, n_tokens);
    return 0;
}

void cache_states_free(CacheStates *states) {
    for (size_t s = 0; s < states->count; s++) {
        for (size_t i = 0; i < states->states[s].count; i++)
            if (states->states[s].kept[i].owned)
                free(states->states[s].kept[i].bytes);
        free(states->states[s].kept);
    }
    free(states->states);
    *states = (CacheStates){0};
}
