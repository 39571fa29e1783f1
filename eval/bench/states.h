/* What a cache held at the depths that a benchmark comes back to: copies, byte for byte, so that only the first
 * repetition reads its way down.
 *
 *     CacheStates states = {0};
 *     KvMemory memory = context_memory(&context);
 *     // in the first repetition, depths rising:
 *     if (cache_states_keep(&states, &context.cache, &memory, &error) < 0) …
 *     // in the others: as it was, counters at 0
 *     if (cache_states_restore(&states, &context.cache, &memory, depth, &error) < 0) …
 *     cache_states_free(&states);
 *
 * Deeper states share with the one before what both hold (kvcache/snapshot.h), so all of them take little more than the
 * deepest, in the host's memory wherever the cache lies. */
#ifndef STOWKV_BENCH_STATES_H
#define STOWKV_BENCH_STATES_H

#include "base/error.h"
#include "kvcache/snapshot.h"

struct CacheState;

typedef struct CacheStates {
    struct CacheState *states; /* (count), depths rising */
    size_t count;
} CacheStates;

/* Adds the state as it is now, deeper than all before. ERROR_MEMORY where there is none; fails where a device does. */
int cache_states_keep(CacheStates *states, const KvCache *cache, const KvMemory *memory, Error *error);

/* The cache as it was when it held n_tokens, which is the depth of one of the states. */
int cache_states_restore(const CacheStates *states, KvCache *cache, const KvMemory *memory, size_t n_tokens,
                         Error *error);

void cache_states_free(CacheStates *states); /* twice is fine */

#endif
