/* See synthetic_model.h. Panels of a few hundred rows are made on the host, and copied again and again on the device.
 */
#include "tests/gpu/synthetic_model.h"

#include "base/checked.h"
#include "base/half.h"
#include "model/packed_matrix.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>

enum { MADE_ROWS = 256 };

const ModelConfig SYNTHETIC_LLAMA_3_8B = {.n_layers = 32,
                                          .n_embd = 4096,
                                          .n_ffn = 14336,
                                          .n_heads = 32,
                                          .n_kv_heads = 8,
                                          .head_dim = 128,
                                          .n_vocab = 128256,
                                          .n_ctx_train = 131072 + 1024,
                                          .norm_eps = 1e-5f,
                                          .rope_theta = 500000,
                                          .rope_scale = 1};
const ModelConfig SYNTHETIC_TINY = {.n_layers = 2,
                                    .n_embd = 256,
                                    .n_ffn = 512,
                                    .n_heads = 4,
                                    .n_kv_heads = 2,
                                    .head_dim = 64,
                                    .n_vocab = 512,
                                    .n_ctx_train = 4096,
                                    .norm_eps = 1e-5f,
                                    .rope_theta = 10000,
                                    .rope_scale = 1};

/* ---- Encoded weights on the host */

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static void put_half(uint8_t *to, float value) {
    uint16_t half = half_from_float(value);
    memcpy(to, &half, sizeof half);
}

/* Numbers of about 1 / sqrt(n_columns), so that products are about as large as activations. */
static void make_weights(const Tensor *tensor, uint8_t *data) {
    static uint64_t state = 1;
    const TensorTypeInfo *info = tensor_type_info(tensor->type);
    float size = 1 / sqrtf((float)tensor->shape[0]);
    for (size_t at = 0; at < tensor->size_bytes; at += info->block_bytes) {
        if (tensor->type == TYPE_F16) {
            put_half(data + at, size * 1.7f * (float)(int32_t)next_random(&state) / 0x1p31f);
            continue;
        }
        for (size_t i = 0; i < info->block_bytes; i++)
            data[at + i] = (uint8_t)next_random(&state);
        put_half(data + at, size * (tensor->type == TYPE_Q8_0 ? 0x1p-6f : 0x1p-2f));
    }
}

static void set_shape(Tensor *tensor, TensorType type, size_t n_columns, size_t n_rows) {
    const TensorTypeInfo *info = tensor_type_info(type);
    *tensor = (Tensor){.type = type,
                       .n_dims = 2,
                       .shape = {n_columns, n_rows, 1, 1},
                       .size_bytes = n_columns * n_rows / info->block_elements * info->block_bytes};
}

/* ---- On the device */

/* Memory that synthetic_model_close() releases. */
static uint8_t *take_memory(SyntheticModel *s, Model *model, size_t size_bytes, const char *what, Error *error) {
    uint8_t *memory = model->backend->ops->allocate(model->backend, size_bytes, what, error);
    if (memory != NULL) {
        s->memory[s->n_memory++] = memory;
        s->size_bytes += size_bytes;
    }
    return memory;
}

static int device_check(cudaError_t status, Error *error) {
    if (status == cudaSuccess)
        return 0;
    return error_set(error, ERROR_IO, "synthetic weights: the GPU failed: %s", cudaGetErrorString(status));
}

/* Fills device memory with what its beginning holds, doubling it. */
static cudaError_t repeat(uint8_t *memory, size_t made_bytes, size_t size_bytes) {
    cudaError_t status = cudaSuccess;
    for (size_t done = made_bytes; done < size_bytes && status == cudaSuccess; done += at_most(done, size_bytes - done))
        status = cudaMemcpy(memory + done, memory, at_most(done, size_bytes - done), cudaMemcpyDeviceToDevice);
    return status;
}

static int fill_panels(const PackedMatrix *packed, TensorType type, Error *error) {
    Tensor some;
    PackedMatrix made;
    set_shape(&some, type, packed->n_columns, MADE_ROWS);
    packed_matrix_measure(&made, &some);
    uint8_t *data = malloc(some.size_bytes);
    made.data = aligned_alloc(64, made.size_bytes);
    if (data == NULL || made.data == NULL) {
        free(data);
        free(made.data);
        return error_memory(error, "synthetic weights", made.size_bytes);
    }
    make_weights(&some, data);
    some.data = data;
    memset(made.data, 0, made.size_bytes);
    packed_matrix_fill(&made, &some, 0, made.n_panels);
    size_t made_bytes = at_most(made.size_bytes, packed->size_bytes);
    cudaError_t status = cudaDeviceSynchronize(); /* the memory was zeroed in another stream */
    if (status == cudaSuccess)
        status = cudaMemcpy(packed->data, made.data, made_bytes, cudaMemcpyHostToDevice);
    if (status == cudaSuccess)
        status = repeat(packed->data, made_bytes, packed->size_bytes);
    free(data);
    free(made.data);
    return device_check(status, error);
}

static int make_matrix(SyntheticModel *s, Model *model, Tensor *tensor, Error *error) {
    PackedMatrix packed;
    packed_matrix_measure(&packed, tensor);
    packed.data = take_memory(s, model, packed.size_bytes, "a synthetic matrix", error);
    if (packed.data == NULL || fill_panels(&packed, tensor->type, error) < 0)
        return error->code;
    CudaMatrix *matrix = &s->matrices[s->n_tensors++];
    *matrix = (CudaMatrix){.type = packed.type,
                           .n_columns = packed.n_columns,
                           .n_rows = packed.n_rows,
                           .panel_bytes = packed.panel_bytes,
                           .panels = packed.data,
                           .half_factor = 1};
    tensor->uploaded = matrix;
    return 0;
}

/* Gains of 1. */
static int make_vector(SyntheticModel *s, Model *model, Tensor *tensor, Error *error) {
    size_t n = tensor->shape[0];
    float *ones = malloc(n * sizeof *ones);
    uint8_t *memory = take_memory(s, model, n * sizeof *ones, "a synthetic vector", error);
    if (ones == NULL || memory == NULL) {
        free(ones);
        return memory == NULL ? error->code : error_memory(error, "a synthetic vector", n * sizeof *ones);
    }
    for (size_t i = 0; i < n; i++)
        ones[i] = 1;
    cudaError_t status = cudaDeviceSynchronize();
    if (status == cudaSuccess)
        status = cudaMemcpy(memory, ones, n * sizeof *ones, cudaMemcpyHostToDevice);
    free(ones);
    tensor->uploaded = memory;
    return device_check(status, error);
}

static int make_tensor(SyntheticModel *s, Model *model, const TensorRole *role, size_t layer, TensorType type,
                       Error *error) {
    const ModelConfig *config = &model->checkpoint.config;
    Tensor *tensor = role_tensor(role, &model->weights, layer);
    size_t columns = role_length(role->columns, config), rows = role_length(role->rows, config);
    if (role->use == TENSOR_HOST || !role_in_family(role, config->family))
        return 0;
    bool is_vector = role->use == TENSOR_VECTOR;
    set_shape(tensor, is_vector ? TYPE_F32 : type, columns, rows);
    tensor->name = sv(role->name);
    return is_vector ? make_vector(s, model, tensor, error) : make_matrix(s, model, tensor, error);
}

static int make_tensors(SyntheticModel *s, Model *model, TensorType type, Error *error) {
    const ModelConfig *config = &model->checkpoint.config;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        for (size_t layer = 0; layer < role_copies(&TENSOR_ROLES[i], config); layer++)
            if (make_tensor(s, model, &TENSOR_ROLES[i], layer, type, error) < 0)
                return error->code;
    return 0;
}

static int open_lists(SyntheticModel *s, Model *model, Error *error) {
    size_t n = 0;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        n += role_copies(&TENSOR_ROLES[i], &model->checkpoint.config);
    s->matrices = calloc(n, sizeof *s->matrices);
    s->memory = calloc(n, sizeof *s->memory);
    model->weights.layers = calloc(model->checkpoint.config.n_layers, sizeof *model->weights.layers);
    if (s->matrices == NULL || s->memory == NULL || model->weights.layers == NULL)
        return error_memory(error, "the list of weights", n * sizeof *s->matrices);
    return 0;
}

int synthetic_model_open(SyntheticModel *synthetic, Model *model, Backend *backend, const ModelConfig *config,
                         TensorType type, Error *error) {
    *synthetic = (SyntheticModel){0};
    *model = (Model){.backend = backend, .checkpoint = {.config = *config}};
    model->checkpoint.config.family = model_family_at(0);
    int status = type == TYPE_F16 || type == TYPE_Q4_0 || type == TYPE_Q8_0
                     ? open_lists(synthetic, model, error)
                     : error_set(error, ERROR_USAGE, "synthetic weights are F16, Q4_0 or Q8_0");
    if (status == 0)
        status = make_tensors(synthetic, model, type, error);
    if (status < 0)
        synthetic_model_close(synthetic, model);
    return status;
}

void synthetic_model_close(SyntheticModel *synthetic, Model *model) {
    for (size_t i = 0; i < synthetic->n_memory; i++)
        model->backend->ops->release(model->backend, synthetic->memory[i], 0);
    free(synthetic->memory);
    free(synthetic->matrices);
    *synthetic = (SyntheticModel){0};
    model_close(model);
}
