/* The cache in a device's memory: what kernels know of it, and the launchers of those that move and encode its tokens.
 * Where a token is they compute themselves (kvcache/places.h), from the number of tokens in device memory, so that a
 * step is the same launches for every token. */
#ifndef STOWKV_CUDA_CACHE_H
#define STOWKV_CUDA_CACHE_H

#include "base/rope.h"
#include "cuda/fragments.h"
#include "kvcache/places.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* In device memory, like all that it points to. */
typedef struct CudaCache {
    KvCacheLayout layout;           /* `layers` is in device memory; `form` is not to be read */
    uint8_t *memory;                /* of the layout's offsets */
    size_t n_tokens;                /* in the cache, before the batch under way */
    const FragmentShape *shapes;    /* (n_layers, KV_MAX_STORES, KV_SIDES), of encoded stores */
    unsigned long long *bytes_read; /* (n_layers, KV_MAX_STORES) by attention, summed over KV heads */
    KvRun *runs;      /* (n_layers, KV_MAX_RUNS) what the query of a token alone sees, by cuda_cache_plan() */
    uint32_t *n_runs; /* (n_layers) */
    unsigned long long *tokens_encoded; /* (n_layers, KV_MAX_STORES) that entered, times KV heads */
} CudaCache;

static HOST_DEVICE inline const FragmentShape *cuda_cache_shape(const CudaCache *cache, size_t layer, size_t store,
                                                                KvSide side) {
    return cache->shapes + (layer * KV_MAX_STORES + store) * KV_SIDES + side;
}

/* A batch begins, behind n_before tokens: the number itself, or where it is in device memory. */
void cuda_cache_begin(CudaCache *cache, size_t n_before, cudaStream_t stream);
void cuda_cache_begin_at(CudaCache *cache, const size_t *n_before, cudaStream_t stream);

/* Fills `runs` for the query at n_tokens, in all layers: once the token is committed, or before that. */
void cuda_cache_plan(CudaCache *cache, size_t n_layers, bool committed, cudaStream_t stream);

typedef struct CudaBatch {
    CudaCache *cache; /* in device memory */
    size_t layer, n_tokens, n_heads, n_kv_heads, head_dim, row_dim, group;
    RopePairing pairing;
    bool commits; /* of a token alone: cuda_cache_append() commits it too */
} CudaBatch;

/* What a batch brings, in device memory. */
typedef struct CudaRows {
    const float *rotation; /* (n_tokens, head_dim / 2, 2) of RoPE; NULL: queries and keys are rotated already */
    float *q;              /* (n_tokens, n_heads, head_dim) */
    float *k;              /* (n_tokens, n_kv_heads, head_dim) */
    const float *v;        /* (n_tokens, n_kv_heads, head_dim) */
} CudaRows;

/* Rotates queries and keys in place, rounds keys and values to FP16 into the batch, and encodes the groups that leave a
 * tier. */
void cuda_cache_append(const CudaBatch *batch, const CudaRows *rows, cudaStream_t stream);

/* Moves the batch into the sink and the first tier. */
void cuda_cache_commit(const CudaBatch *batch, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
