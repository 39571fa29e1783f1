/* The functions of cuBLAS that stowkv calls, from its shared library, found when a backend opens: building needs no
 * cuBLAS, and programs run without it. Types and values are those of NVIDIA's cublas_api.h. */
#ifndef STOWKV_CUDA_BLAS_LIBRARY_H
#define STOWKV_CUDA_BLAS_LIBRARY_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct cublasContext *CublasHandle;

#define CUBLAS_SUCCESS           0    /* CUBLAS_STATUS_SUCCESS */
#define CUBLAS_NOT_TRANSPOSED    0    /* CUBLAS_OP_N */
#define CUBLAS_TRANSPOSED        1    /* CUBLAS_OP_T */
#define CUBLAS_F32               0    /* CUDA_R_32F */
#define CUBLAS_F16               2    /* CUDA_R_16F */
#define CUBLAS_SUMS_F32          68   /* CUBLAS_COMPUTE_32F */
#define CUBLAS_DEFAULT_ALGORITHM (-1) /* CUBLAS_GEMM_DEFAULT */

/* Each returns a status: CUBLAS_SUCCESS, or why not. */
typedef struct CublasFunctions {
    int (*create)(CublasHandle *handle);                                           /* cublasCreate_v2 */
    int (*destroy)(CublasHandle handle);                                           /* cublasDestroy_v2 */
    int (*set_stream)(CublasHandle handle, cudaStream_t stream);                   /* cublasSetStream_v2 */
    int (*set_workspace)(CublasHandle handle, void *workspace, size_t size_bytes); /* cublasSetWorkspace_v2 */
    int (*multiply)(CublasHandle handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                    const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c,
                    int c_type, int ldc, int compute_type, int algorithm); /* cublasGemmEx */
} CublasFunctions;

/* False where there is no library that has them all. A library stays loaded. */
bool cublas_load(CublasFunctions *functions);

#endif
