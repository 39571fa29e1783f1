/* See blas.h. */
#include "cuda/blas.h"

/* NVIDIA's recommendation for cublasSetWorkspace(). */
#define WORKSPACE_BYTES        ((size_t)4 << 20)
#define WORKSPACE_BYTES_HOPPER ((size_t)32 << 20)

static int check(const CudaBlas *blas, const char *what, const char *cure, Error *error) {
    if (blas->status == CUBLAS_SUCCESS)
        return 0;
    return error_set(error, ERROR_IO, "%s: cuBLAS failed with status %d (cublasStatus_t); %s", what, blas->status,
                     cure);
}

/* Keeps the first failure. Nothing is called after it. */
static void note(CudaBlas *blas, int status) {
    if (blas->status == CUBLAS_SUCCESS)
        blas->status = status;
}

int cuda_blas_open(CudaBlas *blas, CudaDevice *device, Error *error) {
    *blas = (CudaBlas){.device = device, .status = CUBLAS_SUCCESS};
    blas->is_there = cublas_load(&blas->functions);
    if (!blas->is_there)
        return 0;
    note(blas, blas->functions.create(&blas->handle));
    if (check(blas, "opening the GPU",
              "if the GPU has memory left, install the cuBLAS of its driver's CUDA version, or none", error) == 0)
        return 0;
    blas->handle = NULL;
    return error->code;
}

void cuda_blas_close(CudaBlas *blas) {
    if (blas->handle != NULL)
        blas->functions.destroy(blas->handle);
    cuda_device_release(blas->workspace);
    *blas = (CudaBlas){.status = CUBLAS_SUCCESS};
}

/* Setting the stream takes the workspace away: it comes second. */
int cuda_blas_reserve(CudaBlas *blas, Error *error) {
    if (blas->workspace != NULL)
        return 0;
    size_t size_bytes = blas->device->architecture >= 90 ? WORKSPACE_BYTES_HOPPER : WORKSPACE_BYTES;
    blas->workspace = cuda_device_allocate(blas->device, size_bytes, "the workspace of cuBLAS", error);
    if (blas->workspace == NULL)
        return error->code;
    note(blas, blas->functions.set_stream(blas->handle, blas->device->stream));
    note(blas, blas->functions.set_workspace(blas->handle, blas->workspace, size_bytes));
    return cuda_blas_check(blas, error);
}

/* cuBLAS has columns one behind the other where we have rows: to it w is (n_columns, n_rows), to be transposed, and y
 * (n_rows, n_tokens) = w^T x. */
void cuda_blas_multiply(CudaBlas *blas, const uint16_t *w, size_t n_rows, const uint16_t *x, size_t n_tokens,
                        size_t n_columns, size_t stride, float alpha, float *y, size_t y_stride) {
    const float beta = 0;
    if (blas->status != CUBLAS_SUCCESS)
        return;
    note(blas,
         blas->functions.multiply(blas->handle, CUBLAS_TRANSPOSED, CUBLAS_NOT_TRANSPOSED, (int)n_rows, (int)n_tokens,
                                  (int)n_columns, &alpha, w, CUBLAS_F16, (int)stride, x, CUBLAS_F16, (int)stride, &beta,
                                  y, CUBLAS_F32, (int)y_stride, CUBLAS_SUMS_F32, CUBLAS_DEFAULT_ALGORITHM));
}

int cuda_blas_check(const CudaBlas *blas, Error *error) {
    return check(blas, "products of a prompt", "if the GPU is lost, see the kernel's log and start again", error);
}
