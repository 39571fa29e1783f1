/* Packing on the host, copying to the device; see weights.h. */
#include "cuda/weights.h"

#include "base/checked.h"
#include "model/packed_matrix.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES_AT_FIRST ((size_t)16 << 20)

void cuda_weights_open(CudaWeights *weights, ThreadPool *pool, cudaStream_t stream) {
    *weights = (CudaWeights){.pool = pool, .stream = stream, .piece_bytes = PIECE_BYTES_AT_FIRST};
}

static void release_pieces(CudaWeights *weights) {
    for (int i = 0; i < 2; i++) {
        if (weights->pieces[i].copied != NULL)
            cudaEventDestroy(weights->pieces[i].copied);
        if (weights->pieces[i].memory != NULL)
            cudaFreeHost(weights->pieces[i].memory);
        weights->pieces[i] = (CudaPiece){0};
    }
}

void cuda_weights_close(CudaWeights *weights) {
    if (weights->pieces[0].memory != NULL)
        cudaStreamSynchronize(weights->stream);
    release_pieces(weights);
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

static int device_failed(Error *error, StringView name, const char *what, cudaError_t status) {
    return error_set(error, ERROR_IO, "%.*s: the GPU failed to %s: %s; does nvidia-smi show it in order?",
                     SV_ARGS(name), what, cudaGetErrorString(status));
}

int cuda_weights_ready(CudaWeights *weights, Error *error) {
    cudaError_t status = cudaStreamSynchronize(weights->stream);
    release_pieces(weights);
    if (status == cudaSuccess)
        status = cudaGetLastError();
    return status == cudaSuccess ? 0 : device_failed(error, sv("weights"), "take them", status);
}

/* NULL, with an error, where there is not enough. */
static void *take_memory(CudaWeights *weights, const Tensor *tensor, size_t size_bytes, Error *error) {
    void *memory = NULL;
    cudaError_t status = cudaMalloc(&memory, size_bytes);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it has been told */
        error_set(error, ERROR_MEMORY,
                  "out of GPU memory: %.*s needs %zu bytes, after %zu bytes of weights; use a smaller checkpoint or "
                  "--device cpu",
                  SV_ARGS(tensor->name), size_bytes, weights->size_bytes);
        return NULL;
    }
    if (status != cudaSuccess) {
        device_failed(error, tensor->name, "allocate memory", status);
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

/* ---- Packing and copying */

static cudaError_t make_pieces(CudaWeights *weights, size_t size_bytes) {
    cudaError_t status = cudaStreamSynchronize(weights->stream);
    release_pieces(weights);
    weights->piece_bytes = at_least(size_bytes, weights->piece_bytes);
    for (int i = 0; i < 2 && status == cudaSuccess; i++) {
        void *memory = NULL;
        status = cudaMallocHost(&memory, weights->piece_bytes);
        weights->pieces[i].memory = memory;
        if (status == cudaSuccess)
            status = cudaEventCreateWithFlags(&weights->pieces[i].copied, cudaEventDisableTiming);
    }
    return status;
}

/* Pieces of at least this size; both or none. */
static int reserve_pieces(CudaWeights *weights, StringView name, size_t size_bytes, Error *error) {
    if (weights->pieces[0].memory != NULL && weights->piece_bytes >= size_bytes)
        return 0;
    cudaError_t status = make_pieces(weights, size_bytes);
    if (status == cudaSuccess)
        return 0;
    release_pieces(weights);
    if (status != cudaErrorMemoryAllocation)
        return device_failed(error, name, "pin memory", status);
    cudaGetLastError(); /* it has been told */
    return error_memory(error, "packing of weights", 2 * weights->piece_bytes);
}

/* Some panels of a matrix that are packed. */
typedef struct PackJob {
    const PackedMatrix *packed;
    const Tensor *tensor;
    size_t first; /* panel */
    uint8_t *to;  /* (panels, panel_bytes) */
} PackJob;

static void pack_panels(void *context, size_t begin, size_t end, int thread) {
    const PackJob *job = context;
    uint8_t *panels = job->to + begin * job->packed->panel_bytes;
    (void)thread;
    memset(panels, 0, (end - begin) * job->packed->panel_bytes);
    packed_panels_fill(job->packed, job->tensor, job->first + begin, job->first + end, panels);
}

/* Packs n panels from `first` on, and has them copied. */
static cudaError_t send_panels(CudaWeights *weights, const PackedMatrix *packed, const Tensor *tensor, size_t first,
                               size_t n) {
    CudaPiece *piece = &weights->pieces[weights->next_piece];
    PackJob job = {packed, tensor, first, piece->memory};
    cudaError_t status = cudaEventSynchronize(piece->copied);
    if (status != cudaSuccess)
        return status;
    thread_pool_run(weights->pool, n, 1, pack_panels, &job);
    weights->next_piece ^= 1;
    status = cudaMemcpyAsync(packed->data + first * packed->panel_bytes, piece->memory, n * packed->panel_bytes,
                             cudaMemcpyHostToDevice, weights->stream);
    return status == cudaSuccess ? cudaEventRecord(piece->copied, weights->stream) : status;
}

static int pack_and_copy(CudaWeights *weights, const PackedMatrix *packed, const Tensor *tensor, Error *error) {
    if (reserve_pieces(weights, tensor->name, packed->panel_bytes, error) < 0)
        return error->code;
    size_t n_sent = weights->piece_bytes / packed->panel_bytes;
    for (size_t first = 0; first < packed->n_panels; first += n_sent) {
        cudaError_t status = send_panels(weights, packed, tensor, first, at_most(packed->n_panels - first, n_sent));
        if (status != cudaSuccess)
            return device_failed(error, tensor->name, "take weights", status);
    }
    return 0;
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
    *matrix = (CudaMatrix){.type = packed.type,
                           .n_columns = packed.n_columns,
                           .n_rows = packed.n_rows,
                           .panel_bytes = packed.panel_bytes,
                           .panels = packed.data};
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
    cudaError_t status = cudaMemcpyAsync(vector, tensor->data, size_bytes, cudaMemcpyHostToDevice, weights->stream);
    if (status != cudaSuccess)
        return device_failed(error, tensor->name, "take weights", status);
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
