/* cuBLAS: products of FP16 matrices with sums in F32.
 *
 *     CudaBlas blas;
 *     if (cuda_blas_open(&blas, &device, &error) < 0) …     // blas.is_there says whether there is a library
 *     if (cuda_blas_reserve(&blas, &error) < 0) …
 *     cuda_blas_multiply(&blas, w, n_rows, x, n_tokens, n_columns, stride, alpha, y, y_stride);
 *     if (cuda_blas_check(&blas, &error) < 0) …             // of all calls so far
 *     cuda_blas_close(&blas);
 *
 * It has one workspace and one stream, so that a product gives the same bits each time; those of a token may differ
 * with the number of tokens, by which cuBLAS chooses a kernel. */
#ifndef STOWKV_CUDA_BLAS_H
#define STOWKV_CUDA_BLAS_H

#include "cuda/blas_library.h"
#include "cuda/device.h"

#include <stdint.h>

typedef struct CudaBlas {
    bool is_there;
    CublasFunctions functions;
    CublasHandle handle;
    CudaDevice *device; /* not owned */
    void *workspace;
    int status; /* of the first call that failed; CUBLAS_SUCCESS: none has */
} CudaBlas;

/* A library that is not there is no error, one that does not start is. */
int cuda_blas_open(CudaBlas *blas, CudaDevice *device, Error *error);
void cuda_blas_close(CudaBlas *blas); /* once its stream is through; twice is fine */

/* The workspace; once is enough. */
int cuda_blas_reserve(CudaBlas *blas, Error *error);

/* y = alpha x w^T. Neither stride need be the columns' number, and that of w and x is a multiple of 8. */
void cuda_blas_multiply(CudaBlas *blas,
                        const uint16_t *w, // (n_rows, stride) FP16
                        size_t n_rows,
                        const uint16_t *x, // (n_tokens, stride) FP16
                        size_t n_tokens, size_t n_columns, size_t stride, float alpha,
                        float *y, // (n_tokens, y_stride), of which n_rows are written
                        size_t y_stride);

int cuda_blas_check(const CudaBlas *blas, Error *error);

#endif
