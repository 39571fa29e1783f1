/* Products of activations with weight matrices, y = x w^T + bias.
 *
 *     CudaProducts p;
 *     if (cuda_products_open(&p, &device, &error) < 0) …
 *     if (cuda_products_reserve(&p, weights.matrices, weights.n_matrices, n_tokens, &error) < 0) …
 *     CudaProduct products[] = {{*q, q_bias, out_q}, {*k, k_bias, out_k}, {*v, v_bias, out_v}};
 *     cuda_products(&p, products, 3, norm, x, n_tokens);
 *     if (cuda_products_check(&p, &error) < 0) …       // of all so far
 *     cuda_products_close(&p);
 *
 * Few tokens are multiplied in F32 (matvec.h): what bounds them is how fast weights are read. From CUDA_BLAS_TOKENS on,
 * and where there is cuBLAS, they are a matter of arithmetic: weights and activations are rounded to FP16
 * (dequantize.h) for the tensor cores, a range of rows at a time, and summed in F32. Each rounding is off by 2^-11 of
 * its number at most. So a token's sums are the same to the bit in each run, but not in a batch and alone. */
#ifndef STOWKV_CUDA_PRODUCTS_H
#define STOWKV_CUDA_PRODUCTS_H

#include "cuda/blas.h"
#include "cuda/matvec.h"

/* matvec.cu spends some 1.4 instructions on a weight and a token: 10^-13 s on an H100, whose multiprocessors issue 3 x
 * 10^13 for each lane and second, at a third of that rate. FP16 has its price before the first token: a weight is read
 * packed (some 0.6 bytes), written and read in FP16, 4.6 bytes and 1.5 x 10^-12 s at 3 x 10^12 bytes/s; each token adds
 * 4 x 10^-15 s. They meet at 15 tokens, on an A100 at 11. */
#define CUDA_BLAS_TOKENS 16

typedef struct CudaProducts {
    CudaDevice *device; /* not owned */
    CudaBlas blas;
    size_t n_tokens;        /* that there is memory for; 0: none */
    size_t weights_bytes;   /* of half_weights */
    size_t x_bytes;         /* of half_x */
    uint16_t *half_weights; /* some rows of a matrix; device */
    uint16_t *half_x;       /* activations of a batch; device */
    float *inverses;        /* (n_tokens) of their factors; device */
} CudaProducts;

int cuda_products_open(CudaProducts *p, CudaDevice *device, Error *error);
void cuda_products_close(CudaProducts *p); /* once the stream is through */

/* Memory for batches of up to n_tokens, and each matrix's half_factor, for which it waits; products take no other
 * matrices, and no more tokens, after it. */
int cuda_products_reserve(CudaProducts *p, CudaMatrix *const *matrices, size_t n_matrices, size_t n_tokens,
                          Error *error);

/* Matrices have the same columns; norm as in matvec.h. */
void cuda_products(CudaProducts *p, const CudaProduct *products, size_t n_products, CudaNorm norm,
                   const float *x, // (n_tokens, n_columns), aligned to 16 bytes
                   size_t n_tokens);

/* Failures that cudaGetLastError() does not tell. */
int cuda_products_check(const CudaProducts *p, Error *error);

/* How products with that many tokens treat activations, for kernels' names: "f32", "f16cublas". */
const char *cuda_product_path(const CudaProducts *p, size_t n_tokens);

#endif
