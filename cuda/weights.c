/* Packing on the host, copying to the device; see weights.h. */
#include "cuda/weights.h"

#include "base/checked.h"
#include "model/packed_matrix.h"

#include <assert.h>
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
    for (size_t i = 0; i < weights->n_matrices; i++)
        free(weights->matrices[i]);
    free(weights->matrices);
    if (weights->arena != NULL)
        cudaFree(weights->arena);
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

/* ---- The arena */

/* Of its form on the device; 0 for what stays on the host. */
static size_t device_bytes(const Tensor *tensor, TensorUse use) {
    PackedMatrix packed;
    if (use == TENSOR_VECTOR)
        return tensor->shape[0] * sizeof(float);
    if (use != TENSOR_MATRIX && use != TENSOR_ROWS)
        return 0;
    packed_matrix_measure(&packed, tensor);
    return packed.size_bytes;
}

/* Behind the first *end bytes, which become more. */
static bool place(size_t size_bytes, size_t *end, size_t *at) {
    return checked_align(*end, CUDA_WEIGHT_ALIGNMENT, at) && checked_add(*at, size_bytes, end);
}

int cuda_weights_announce(CudaWeights *weights, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    assert(weights->arena == NULL);
    for (size_t i = 0, at; i < n_tensors; i++)
        if (!place(device_bytes(tensors[i], use), &weights->size_bytes, &at))
            return error_set(error, ERROR_FORMAT, "%.*s: the weights are larger than any memory; is the file damaged?",
                             SV_ARGS(tensors[i]->name));
    return 0;
}

static int allocate_arena(CudaWeights *weights, Error *error) {
    void *memory = NULL;
    size_t free_bytes = 0, total_bytes = 0;
    cudaError_t status = cudaMalloc(&memory, weights->size_bytes);
    weights->arena = memory;
    if (status == cudaSuccess)
        return 0;
    if (status != cudaErrorMemoryAllocation)
        return device_failed(error, sv("weights"), "allocate memory", status);
    cudaGetLastError(); /* it is told here */
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return error_set(
        error, ERROR_MEMORY,
        "the weights need %.1f MB of the GPU's memory, of which %.1f MB are free; free some, use a smaller "
        "checkpoint, or --device cpu",
        (double)weights->size_bytes / 1e6, (double)free_bytes / 1e6);
}

/* NULL, with an error, where there is no arena, or none for this. */
static void *take_memory(CudaWeights *weights, size_t size_bytes, Error *error) {
    size_t at = 0;
    if (weights->arena == NULL && allocate_arena(weights, error) < 0)
        return NULL;
    if (place(size_bytes, &weights->taken_bytes, &at) && weights->taken_bytes <= weights->size_bytes)
        return weights->arena + at;
    error_set(error, ERROR_ARGUMENT, "weights: more are uploaded than were announced");
    return NULL;
}

/* Room for one more matrix in the list. */
static int grow_list(CudaWeights *weights, Error *error) {
    size_t size_bytes = (weights->n_matrices + 1) * sizeof *weights->matrices;
    CudaMatrix **matrices = realloc(weights->matrices, size_bytes);
    if (matrices == NULL)
        return error_memory(error, "the list of weights", size_bytes);
    weights->matrices = matrices;
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
    if (grow_list(weights, error) < 0)
        return error->code;
    CudaMatrix *matrix = malloc(sizeof *matrix);
    if (matrix == NULL)
        return error_memory(error, "a weight matrix", sizeof *matrix);
    packed.data = take_memory(weights, packed.size_bytes, error);
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
    size_t size_bytes = device_bytes(tensor, TENSOR_VECTOR);
    float *vector = take_memory(weights, size_bytes, error);
    if (vector == NULL)
        return error->code;
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
