/* cuBLAS on the host, in place of cuda/blas_library.c: cublasGemmEx() of FP16 with sums in F32, in plain order. It
 * refuses what cuBLAS refuses, and stops at what only makes cuBLAS slow, or what it could not see: rows that are not
 * aligned, memory that is the host's or too small, a workspace that another stream's is. */
#include "cuda/blas_library.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/half.h"
#include "tests/cuda_shim/device.h"

enum { NOT_INITIALIZED = 1, NO_MEMORY = 3, INVALID_VALUE = 7, FAILED = 13, NOT_SUPPORTED = 15 }; /* cublasStatus_t */

struct cublasContext {
    cudaStream_t stream;
    void *workspace;
    size_t workspace_bytes;
};

static void stop(const char *message) {
    fprintf(stderr, "cuda_shim: cuBLAS: %s\n", message);
    abort();
}

/* Only the status tells of failures, but for those of the device itself. */
static bool call_fails(void) {
    bool fails = cudaDeviceSynchronize() != cudaSuccess;
    if (fails)
        cudaGetLastError();
    return fails;
}

static int create(CublasHandle *handle) {
    *handle = NULL;
    if (call_fails())
        return NOT_INITIALIZED;
    *handle = calloc(1, sizeof **handle);
    return *handle == NULL ? NO_MEMORY : CUBLAS_SUCCESS;
}

static int destroy(CublasHandle handle) {
    free(handle);
    return call_fails() ? NOT_INITIALIZED : CUBLAS_SUCCESS;
}

static int set_stream(CublasHandle handle, cudaStream_t stream) {
    handle->stream = stream;
    handle->workspace = NULL;
    return call_fails() ? FAILED : CUBLAS_SUCCESS;
}

static int set_workspace(CublasHandle handle, void *workspace, size_t size_bytes) {
    if ((uintptr_t)workspace % 256 != 0)
        return INVALID_VALUE;
    handle->workspace = workspace;
    handle->workspace_bytes = size_bytes;
    return call_fails() ? FAILED : CUBLAS_SUCCESS;
}

/* A matrix in cuBLAS's order, columns one behind the other. */
typedef struct Operand {
    const uint16_t *halves; /* (n_columns, stride) */
    int n_rows, n_columns, stride;
} Operand;

static void check_memory(const void *memory, int n_rows, int n_columns, int stride, size_t element_bytes) {
    size_t n = (size_t)(n_columns - 1) * (size_t)stride + (size_t)n_rows;
    if (!cuda_shim_is_device_memory(memory, n * element_bytes))
        stop("a matrix is not in device memory, or ends beyond it");
}

static void check_operand(const Operand *o) {
    if ((uintptr_t)o->halves % 16 != 0 || o->stride % 8 != 0)
        stop("a matrix is not aligned to 16 bytes: it would do without tensor cores");
    check_memory(o->halves, o->n_rows, o->n_columns, o->stride, sizeof *o->halves);
}

/* Rows of op(A), or columns of op(B), each with its k elements one behind the other. */
static float *decode(const Operand *o, bool is_along_columns, int n, int k) {
    float *out = malloc((size_t)n * (size_t)k * sizeof *out);
    if (out == NULL)
        stop("the host is out of memory");
    for (int i = 0; i < n; i++)
        for (int j = 0; j < k; j++) {
            size_t at = is_along_columns ? (size_t)i * (size_t)o->stride + (size_t)j
                                         : (size_t)j * (size_t)o->stride + (size_t)i;
            out[(size_t)i * (size_t)k + (size_t)j] = half_to_float(o->halves[at]);
        }
    return out;
}

static void multiply_decoded(const float *a, const float *b, int m, int n, int k, float alpha, float beta, float *c,
                             int ldc) {
    for (int column = 0; column < n; column++)
        for (int row = 0; row < m; row++) {
            const float *x = a + (size_t)row * (size_t)k, *y = b + (size_t)column * (size_t)k;
            float sum = 0, *to = c + (size_t)column * (size_t)ldc + row;
            for (int i = 0; i < k; i++)
                sum += x[i] * y[i];
            *to = beta == 0 ? alpha * sum : alpha * sum + beta * *to;
        }
}

static int multiply(CublasHandle handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                    const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c,
                    int c_type, int ldc, int compute_type, int algorithm) {
    bool a_is_transposed = transpose_a == CUBLAS_TRANSPOSED, b_is_transposed = transpose_b == CUBLAS_TRANSPOSED;
    Operand x = {a, a_is_transposed ? k : m, a_is_transposed ? m : k, lda};
    Operand y = {b, b_is_transposed ? n : k, b_is_transposed ? k : n, ldb};
    if (m <= 0 || n <= 0 || k <= 0 || lda < x.n_rows || ldb < y.n_rows || ldc < m || alpha == NULL || beta == NULL)
        return INVALID_VALUE;
    if (a_type != CUBLAS_F16 || b_type != CUBLAS_F16 || c_type != CUBLAS_F32 || compute_type != CUBLAS_SUMS_F32 ||
        algorithm != CUBLAS_DEFAULT_ALGORITHM)
        return NOT_SUPPORTED;
    if (handle->workspace == NULL || !cuda_shim_is_device_memory(handle->workspace, handle->workspace_bytes))
        stop("there is no workspace: it would allocate one");
    check_operand(&x);
    check_operand(&y);
    check_memory(c, m, n, ldc, sizeof(float));
    if (!cuda_shim_begin_launch(handle->stream)) {
        cudaGetLastError();
        return FAILED;
    }
    float *rows = decode(&x, a_is_transposed, m, k), *columns = decode(&y, !b_is_transposed, n, k);
    multiply_decoded(rows, columns, m, n, k, *(const float *)alpha, *(const float *)beta, c, ldc);
    free(rows);
    free(columns);
    cuda_shim_end_launch();
    return CUBLAS_SUCCESS;
}

bool cublas_load(CublasFunctions *functions) {
    *functions = (CublasFunctions){create, destroy, set_stream, set_workspace, multiply};
    return cuda_shim_has_blas();
}
