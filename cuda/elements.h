/* What the forward pass does to activations between products, in F32; see model/backend.h for each operation. */
#ifndef STOWKV_CUDA_ELEMENTS_H
#define STOWKV_CUDA_ELEMENTS_H

#include "cuda/matrix.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of the token embedding; the same bits as decoding the checkpoint's gives. */
void cuda_embed(const CudaMatrix *embedding, // {n_embd, n_vocab}
                const int32_t *tokens,       // (n_tokens) in device memory
                size_t n_tokens,
                float *x, // (n_tokens, n_embd)
                cudaStream_t stream);

void cuda_rmsnorm(const float *x,    // (n_tokens, n)
                  const float *gain, // (n)
                  float eps, size_t n, size_t n_tokens,
                  float *y, // (n_tokens, n)
                  cudaStream_t stream);

void cuda_scale(float *x, float scale, size_t n, cudaStream_t stream);         /* x *= scale */
void cuda_soft_cap(float *x, float cap, size_t n, cudaStream_t stream);        /* x = cap * tanh(x / cap) */
void cuda_geglu(float *gate, const float *up, size_t n, cudaStream_t stream);  /* gate = gelu(gate) * up, by tanh */
void cuda_swiglu(float *gate, const float *up, size_t n, cudaStream_t stream); /* gate = silu(gate) * up */
void cuda_add(float *x, const float *y, size_t n, cudaStream_t stream);        /* x += y */

#ifdef __cplusplus
}
#endif

#endif
