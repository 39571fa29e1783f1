/* The sums of kvcache/codec/query_moments.h by their definition, query after query: for tests. */
#ifndef STOWKV_PLAIN_MOMENTS_H
#define STOWKV_PLAIN_MOMENTS_H

#include "kvcache/codec/query_moments.h"

static inline void plain_moments_add(float *sums, size_t head_dim, const float *query) {
    enum { TILE = KV_MOMENTS_TILE };
    for (size_t i = 0; i < head_dim; i++)
        for (size_t j = 0; j < kv_moments_row(i + 1); j++) {
            size_t tile = i / TILE * (i / TILE + 1) / 2 + j / TILE;
            sums[(tile * TILE + i % TILE) * TILE + j % TILE] += query[i] * (j < head_dim ? query[j] : 0);
        }
}

#endif
