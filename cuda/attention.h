/* Attention on a device: softmax(q K^T / sqrt(head_dim)) V over what the cache's view shows each query (see
 * attention/attention.h for the host's). Kernels read codes as they are stored; there is no decoded copy of the cache.
 *
 *     if (cuda_attention_is_fused(head_dim, n_heads / n_kv_heads) && n_tokens == 1)
 *         cuda_attend_fused(&attention, stream);     // one query: tensor cores, all multiprocessors share its view
 *     else if (cuda_attention_has_prefill(head_dim, n_heads / n_kv_heads))
 *         cuda_attend_prefill(&attention, stream);   // a batch: tensor cores, a tile decoded once for many queries
 *     else
 *         cuda_attend_plain(&attention, stream);     // any shape, any number of queries
 */
#ifndef STOWKV_CUDA_ATTENTION_H
#define STOWKV_CUDA_ATTENTION_H

#include "base/rope.h"
#include "cuda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A batch in one layer, between cuda_cache_append() and cuda_cache_commit(). All pointers are into device memory. */
typedef struct CudaAttention {
    CudaCache *cache;
    size_t layer, n_tokens, n_heads, n_kv_heads, head_dim;
    RopePairing pairing;
    const float *q;              /* (n_tokens, n_heads, head_dim) rotated by RoPE */
    const float *shift_rotation; /* (n_tokens, head_dim / 2, 2) RoPE by minus the tokens dropped, for shifted runs; or
                                    NULL where no run is shifted */
    float *out;                  /* (n_tokens, n_heads, head_dim) */
    void *workspace;             /* cuda_attention_workspace() bytes, zeroed once, for a query that is alone */
    size_t n_multiprocessors;
} CudaAttention;

/* Bytes of the workspace of a model of this shape. */
size_t cuda_attention_workspace(size_t n_heads, size_t n_kv_heads, size_t head_dim, size_t n_multiprocessors);

/* Whether the fused kernel has this shape: head_dim 64, 80, 96, 128 or 256, and up to 16 query heads a KV head. */
bool cuda_attention_is_fused(size_t head_dim, size_t q_per_kv);

/* Whether the kernel of batches has it: the same, and up to 32. */
bool cuda_attention_has_prefill(size_t head_dim, size_t q_per_kv);

/* Rows of the cache are as long as heads for the first two. cuda_attend_fused(): n_tokens is 1, and cuda_cache_plan()
 * was called for it. */
void cuda_attend_fused(const CudaAttention *attention, cudaStream_t stream);
void cuda_attend_prefill(const CudaAttention *attention, cudaStream_t stream);
void cuda_attend_plain(const CudaAttention *attention, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
