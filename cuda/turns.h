/* RoPE's angles on a device: cosine and sine of each pair for the tokens of a batch, from positions in device memory.
 */
#ifndef STOWKV_CUDA_TURNS_H
#define STOWKV_CUDA_TURNS_H

#include "cuda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* At *position and those after it. */
void cuda_turns(const double *frequencies, // (head_dim / 2) radians a position
                const size_t *position, size_t head_dim, size_t n_tokens,
                float *rotation, // (n_tokens, head_dim / 2, 2)
                cudaStream_t stream);

/* By minus the tokens that each token of the batch no longer sees in this layer. */
void cuda_turns_back(const CudaCache *cache, size_t layer, const double *frequencies, size_t head_dim, size_t n_tokens,
                     float *rotation, // (n_tokens, head_dim / 2, 2)
                     cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
