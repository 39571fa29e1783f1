/* See products.h. */
#include "cuda/products.h"

#include "base/checked.h"
#include "cuda/dequantize.h"
#include "model/packed_format.h"

#include <stdlib.h>

/* Of FP16 weights at a time: the second cache of recent GPUs (H100: 50 MB, RTX 4090: 72 MB) keeps most of them until
 * they are multiplied, and 8192 rows of 4096 columns are work for all multiprocessors. */
#define MOST_WEIGHTS_BYTES ((size_t)64 << 20)

int cuda_products_open(CudaProducts *p, CudaDevice *device, Error *error) {
    *p = (CudaProducts){.device = device};
    return cuda_blas_open(&p->blas, device, error);
}

static void release_memory(CudaProducts *p) {
    cuda_device_release(p->half_weights);
    cuda_device_release(p->half_x);
    cuda_device_release(p->inverses);
    p->half_weights = p->half_x = NULL;
    p->inverses = NULL;
    p->weights_bytes = p->x_bytes = p->n_tokens = 0;
}

void cuda_products_close(CudaProducts *p) {
    release_memory(p);
    cuda_blas_close(&p->blas);
}

static bool uses_blas(const CudaProducts *p, size_t n_tokens) {
    return p->blas.is_there && n_tokens >= CUDA_BLAS_TOKENS;
}

/* ---- Reserving */

static size_t panel_halves_bytes(const CudaMatrix *w) {
    return PANEL_ROWS * cuda_half_stride(w->n_columns) * sizeof(uint16_t);
}

/* Sets half_factor of the matrices that have none. */
static int find_factors(CudaProducts *p, CudaMatrix *const *matrices, size_t n_matrices, Error *error) {
    cudaStream_t stream = p->device->stream;
    size_t size_bytes = n_matrices * sizeof(uint32_t);
    uint32_t *largest = cuda_device_allocate(p->device, size_bytes, "the size of weights", error);
    if (largest == NULL)
        return error->code;
    for (size_t i = 0; i < n_matrices; i++)
        if (matrices[i]->half_factor == 0)
            cuda_find_largest(matrices[i], largest + i, stream);
    uint32_t *found = malloc(size_bytes);
    cudaError_t status = cudaGetLastError(); /* of launches */
    if (found != NULL && status == cudaSuccess)
        status = cudaMemcpyAsync(found, largest, size_bytes, cudaMemcpyDeviceToHost, stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(stream);
    for (size_t i = 0; i < n_matrices && found != NULL && status == cudaSuccess; i++)
        if (matrices[i]->half_factor == 0)
            matrices[i]->half_factor = cuda_half_factor(found[i]);
    int code = found == NULL ? error_memory(error, "the size of weights", size_bytes)
                             : cuda_check(status, "finding the largest weights", error);
    free(found);
    cuda_device_release(largest);
    return code;
}

static int reserve_memory(CudaProducts *p, size_t weights_bytes, size_t x_bytes, size_t n_tokens, Error *error) {
    static const char WHAT[] = "FP16 for products of prompts";
    if (p->weights_bytes >= weights_bytes && p->x_bytes >= x_bytes && p->n_tokens >= n_tokens)
        return 0;
    release_memory(p);
    p->half_weights = cuda_device_allocate(p->device, weights_bytes, WHAT, error);
    if (p->half_weights != NULL)
        p->half_x = cuda_device_allocate(p->device, x_bytes, WHAT, error);
    if (p->half_x != NULL)
        p->inverses = cuda_device_allocate(p->device, n_tokens * sizeof *p->inverses, WHAT, error);
    if (p->inverses == NULL) {
        release_memory(p);
        return error->code;
    }
    p->weights_bytes = weights_bytes;
    p->x_bytes = x_bytes;
    p->n_tokens = n_tokens;
    return 0;
}

int cuda_products_reserve(CudaProducts *p, CudaMatrix *const *matrices, size_t n_matrices, size_t n_tokens,
                          Error *error) {
    size_t panel_bytes = 0, matrix_bytes = 0;
    if (!uses_blas(p, n_tokens) || n_matrices == 0)
        return 0;
    for (size_t i = 0; i < n_matrices; i++) {
        panel_bytes = at_least(panel_halves_bytes(matrices[i]), panel_bytes);
        matrix_bytes =
            at_least(divide_up(matrices[i]->n_rows, PANEL_ROWS) * panel_halves_bytes(matrices[i]), matrix_bytes);
    }
    if (reserve_memory(p, at_least(at_most(matrix_bytes, MOST_WEIGHTS_BYTES), panel_bytes),
                       panel_bytes / PANEL_ROWS * n_tokens, n_tokens, error) < 0 ||
        cuda_blas_reserve(&p->blas, error) < 0)
        return error->code;
    return find_factors(p, matrices, n_matrices, error);
}

/* ---- Products */

/* As many rows at a time as there is memory for. */
static void multiply_halves(CudaProducts *p, const CudaProduct *product, size_t n_tokens) {
    const CudaMatrix *w = &product->w;
    size_t stride = cuda_half_stride(w->n_columns), n_panels = divide_up(w->n_rows, PANEL_ROWS);
    size_t step = p->weights_bytes / panel_halves_bytes(w);
    for (size_t panel = 0; panel < n_panels; panel += step) {
        size_t n = at_most(n_panels - panel, step), first_row = panel * PANEL_ROWS;
        cuda_dequantize(w, panel, n, p->half_weights, p->device->stream);
        cuda_blas_multiply(&p->blas, p->half_weights, at_most(w->n_rows - first_row, n * PANEL_ROWS), p->half_x,
                           n_tokens, w->n_columns, stride, 1 / w->half_factor, product->y + first_row, w->n_rows);
    }
    cuda_undo_factors(product->y, product->bias, p->inverses, n_tokens, w->n_rows, p->device->stream);
}

void cuda_products(CudaProducts *p, const CudaProduct *products, size_t n_products, CudaNorm norm, const float *x,
                   size_t n_tokens) {
    if (!uses_blas(p, n_tokens)) {
        cuda_matvec(products, n_products, norm, x, n_tokens, p->device->stream);
        return;
    }
    cuda_halve_tokens(x, n_tokens, products[0].w.n_columns, p->half_x, p->inverses, p->device->stream);
    for (size_t i = 0; i < n_products; i++)
        multiply_halves(p, &products[i], n_tokens);
}

int cuda_products_check(const CudaProducts *p, Error *error) {
    return cuda_blas_check(&p->blas, error);
}

const char *cuda_product_path(const CudaProducts *p, size_t n_tokens) {
    return uses_blas(p, n_tokens) ? "f16cublas" : "f32";
}
