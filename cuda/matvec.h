/* Products of activations with weight matrices, y = x w^T + bias, in F32, by kernels that read weights as fast as
 * memory delivers them.
 *
 * Codes are made floats exactly and meet F32 activations; a scale meets the sum of its run of columns. The order of
 * sums depends on the shape of the matrix alone: a token gets the same bits in any batch.
 *
 * A token alone may be normalised by the products that read it, each block of threads for itself: as by cuda_rmsnorm()
 * before them, to the bit, and a launch less. */
#ifndef STOWKV_CUDA_MATVEC_H
#define STOWKV_CUDA_MATVEC_H

#include "cuda/matrix.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CudaProduct {
    CudaMatrix w;
    const float *bias; /* (n_rows); NULL: none */
    float *y;          /* (n_tokens, n_rows) */
} CudaProduct;

typedef struct CudaNorm {
    const float *gain; /* (n_columns), aligned to 16 bytes; NULL: x is taken as it is */
    float eps;
} CudaNorm;

/* Whether products of so many tokens can normalise them; else they take no CudaNorm with a gain. */
bool cuda_matvec_norms(size_t n_columns, size_t n_tokens);

/* Matrices have the same columns. Those of one type that follow each other are one launch. */
void cuda_matvec(const CudaProduct *products, size_t n_products, CudaNorm norm,
                 const float *x, // (n_tokens, n_columns), aligned to 16 bytes
                 size_t n_tokens, cudaStream_t stream);

/* gate_up[0].y = silu(x gate^T) * (x up^T), which wants matrices of one type and shape; gate_up[1].y is not used. */
bool cuda_matvec_gates(const CudaMatrix *gate, const CudaMatrix *up);
void cuda_matvec_gate(const CudaProduct gate_up[2], CudaNorm norm, const float *x, size_t n_tokens,
                      cudaStream_t stream);

/* y += x w^T + bias, of one product. */
void cuda_matvec_add(const CudaProduct *product, const float *x, size_t n_tokens, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
