/* Packing on the host, copying to the device; see weights.h. */
#include "cuda/weights.h"

#include "base/checked.h"
#include "model/packed_matrix.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

void cuda_weights_open(CudaWeights *weights, ThreadPool *pool) {
    *weights = (CudaWeights){.pool = pool, .staging_bytes = (size_t)32 << 20};
}

void cuda_weights_close(CudaWeights *weights) {
    for (size_t i = 0; i < weights->n_matrices; i++) {
        cudaFree((void *)weights->matrices[i]->panels);
        free(weights->matrices[i]);
    }
    for (size_t i = 0; i < weights->n_vectors; i++)
        cudaFree(weights->vectors[i]);
    free(weights->matrices);
    free(weights->vectors);
    *weights = (CudaWeights){0};
}

static int device_failed(Error *error, const Tensor *tensor, const char *what, cudaError_t status) {
    return error_set(error, ERROR_IO, "%.*s: the GPU failed to %s: %s; does nvidia-smi show it in order?",
                     SV_ARGS(tensor->name), what, cudaGetErrorString(status));
}

/* NULL, with an error, where there is not enough. */
static void *take_memory(CudaWeights *weights, const Tensor *tensor, size_t size_bytes, Error *error) {
    void *memory = NULL;
    cudaError_t status = cudaMalloc(&memory, size_bytes);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it has been told */
        error_set(error, ERROR_MEMORY,
                  "out of GPU memory: %.*s needs %zu bytes, after %zu bytes of weights; use a smaller checkpoint or "
                  "the CPU backend",
                  SV_ARGS(tensor->name), size_bytes, weights->size_bytes);
        return NULL;
    }
    if (status != cudaSuccess) {
        device_failed(error, tensor, "allocate memory", status);
        return NULL;
    }
    weights->size_bytes += size_bytes;
    return memory;
}

/* Room for one more pointer in an owned list. */
static int grow_list(void *list, size_t n, Error *error) {
    void **pointers = realloc(*(void **)list, (n + 1) * sizeof *pointers);
    if (pointers == NULL)
        return error_memory(error, "the list of weights", (n + 1) * sizeof *pointers);
    *(void **)list = pointers;
    return 0;
}

/* Some panels of a matrix on their way to the device. */
typedef struct PackJob {
    const PackedMatrix *packed;
    const Tensor *tensor;
    size_t first;     /* panel */
    uint8_t *staging; /* (panels, panel_bytes) */
} PackJob;

static void pack_panels(void *context, size_t begin, size_t end, int thread) {
    const PackJob *job = context;
    uint8_t *panels = job->staging + begin * job->packed->panel_bytes;
    (void)thread;
    memset(panels, 0, (end - begin) * job->packed->panel_bytes);
    packed_panels_fill(job->packed, job->tensor, job->first + begin, job->first + end, panels);
}

static int pack_and_copy(const CudaWeights *weights, const PackedMatrix *packed, const Tensor *tensor, Error *error) {
    size_t n_staged = at_most(at_least(weights->staging_bytes / packed->panel_bytes, 1), packed->n_panels);
    size_t staging_bytes = n_staged * packed->panel_bytes;
    PackJob job = {.packed = packed, .tensor = tensor, .staging = aligned_alloc(64, staging_bytes)};
    cudaError_t status = cudaSuccess;
    if (job.staging == NULL)
        return error_memory(error, "packing of weights", staging_bytes);
    for (; job.first < packed->n_panels && status == cudaSuccess; job.first += n_staged) {
        size_t n = at_most(packed->n_panels - job.first, n_staged);
        thread_pool_run(weights->pool, n, 1, pack_panels, &job);
        status = cudaMemcpy(packed->data + job.first * packed->panel_bytes, job.staging, n * packed->panel_bytes,
                            cudaMemcpyHostToDevice);
    }
    free(job.staging);
    return status == cudaSuccess ? 0 : device_failed(error, tensor, "take weights", status);
}

static int upload_matrix(CudaWeights *weights, Tensor *tensor, Error *error) {
    PackedMatrix packed;
    packed_matrix_measure(&packed, tensor);
    if (grow_list(&weights->matrices, weights->n_matrices, error) < 0)
        return error->code;
    CudaMatrix *matrix = malloc(sizeof *matrix);
    if (matrix == NULL)
        return error_memory(error, "a weight matrix", sizeof *matrix);
    packed.data = take_memory(weights, tensor, packed.size_bytes, error);
    if (packed.data == NULL) {
        free(matrix);
        return error->code;
    }
    *matrix = (CudaMatrix){packed.type, packed.n_columns, packed.n_rows, packed.panel_bytes, packed.data};
    weights->matrices[weights->n_matrices++] = matrix;
    if (pack_and_copy(weights, &packed, tensor, error) < 0)
        return error->code;
    tensor->uploaded = matrix;
    return 0;
}

static int upload_vector(CudaWeights *weights, Tensor *tensor, Error *error) {
    size_t size_bytes = tensor->shape[0] * sizeof(float);
    if (grow_list(&weights->vectors, weights->n_vectors, error) < 0)
        return error->code;
    float *vector = take_memory(weights, tensor, size_bytes, error);
    if (vector == NULL)
        return error->code;
    weights->vectors[weights->n_vectors++] = vector;
    cudaError_t status = cudaMemcpy(vector, tensor->data, size_bytes, cudaMemcpyHostToDevice);
    if (status != cudaSuccess)
        return device_failed(error, tensor, "take weights", status);
    tensor->uploaded = vector;
    return 0;
}

int cuda_weights_upload(CudaWeights *weights, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    for (size_t i = 0; i < n_tensors; i++) {
        int code = use == TENSOR_MATRIX || use == TENSOR_ROWS ? upload_matrix(weights, tensors[i], error)
                   : use == TENSOR_VECTOR                     ? upload_vector(weights, tensors[i], error)
                                                              : 0;
        if (code < 0)
            return code;
    }
    return 0;
}
