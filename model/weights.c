/* Binding of tensors to roles; see weights.h. */
#include "model/weights.h"

#include "base/block_decode.h"
#include "base/checked.h"
#include "base/finite.h"
#include "base/name_list.h"
#include "base/simd/detect.h"

#include <math.h>
#include <stdlib.h>

/* A checkpoint, and which of its tensors have a role so far. */
typedef struct Binding {
    const Checkpoint *checkpoint;
    const char *path; /* for messages */
    bool *bound;      /* (checkpoint->n_tensors) */
} Binding;

static int check_tensor(const Tensor *tensor, const TensorRole *role, const ModelConfig *config, const char *path,
                        Error *error) {
    size_t columns = role_length(role->columns, config), rows = role_length(role->rows, config);
    if (role_is_vector(role) && tensor->type != TYPE_F32)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: %.*s: is %s, expected F32, F16 or BF16; convert the checkpoint again", path,
                         SV_ARGS(tensor->name), tensor_type_info(tensor->type)->name);
    if (tensor->shape[0] == columns && tensor_n_rows(tensor) == rows && tensor->shape[1] == rows)
        return 0;
    bool transposed = tensor->shape[0] == rows && tensor->shape[1] == columns;
    return error_set(error, ERROR_FORMAT, "%s: %.*s: expected [%zu, %zu], file has [%zu, %zu]; %s", path,
                     SV_ARGS(tensor->name), columns, rows, tensor->shape[0], tensor_n_rows(tensor),
                     transposed ? "was it exported transposed?" : "its metadata belongs to another model");
}

static int bind_role(Binding *binding, const TensorRole *role, size_t layer, Tensor *out, Error *error) {
    const Checkpoint *checkpoint = binding->checkpoint;
    char space[ROLE_NAME_BYTES];
    const char *name = role_name(role, layer, space);
    const Tensor *tensor = checkpoint_tensor(checkpoint, name);
    if (tensor == NULL && role->otherwise != NULL)
        tensor = checkpoint_tensor(checkpoint, role->otherwise);
    if (tensor == NULL && role->presence == ROLE_OPTIONAL)
        return 0;
    if (tensor == NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: missing tensor %s of model family '%s'; convert the checkpoint again", binding->path,
                         name, checkpoint->config.family->name);
    binding->bound[tensor - checkpoint->tensors] = true;
    *out = *tensor;
    return check_tensor(tensor, role, &checkpoint->config, binding->path, error);
}

/* ---- What is left over */

/* Ignoring the tensor could change the text in silence: it may be a product's bias, or of a layer beyond the last. */
static int refuse(const Binding *binding, StringView name, Error *error) {
    const ModelConfig *config = &binding->checkpoint->config;
    const TensorRole *role = tensor_role_of(name);
    NameList families = {0};
    const ModelFamily *family;
    for (size_t i = 0; role != NULL && (family = model_family_at(i)) != NULL; i++)
        if (role_in_family(role, family))
            name_list_add(&families, family->name);
    if (role != NULL && !role_in_family(role, config->family))
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: %.*s: models of family '%s' have no such tensor, those of %s have; "
                         "use a checkpoint without it",
                         binding->path, SV_ARGS(name), config->family->name, families.text);
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s: %.*s: is no part of a '%s' model of %zu layers, and the text would be wrong without it; "
                     "use a checkpoint without it",
                     binding->path, SV_ARGS(name), config->family->name, config->n_layers);
}

static double element(const Tensor *tensor, size_t i) {
    float value = 0;
    tensor_decoder(tensor->type, SIMD_SCALAR)(tensor, i, 1, &value);
    return (double)value;
}

/* What is left out as RoPE's frequencies must be those that the configuration gives, to the precision of 16 bits. */
static bool are_frequencies(const Tensor *tensor, const ModelConfig *config, const Tensor *factors) {
    size_t n_pairs = config->head_dim / 2;
    if (tensor_type_info(tensor->type)->block_elements != 1 || tensor->shape[0] * tensor_n_rows(tensor) != n_pairs)
        return false;
    for (size_t i = 0; i < n_pairs; i++) {
        double expected = pow(config->rope_theta, -2.0 * (double)i / (double)config->head_dim);
        if (factors->data != NULL)
            expected /= element(factors, i);
        if (!(fabs(element(tensor, i) - expected) <= 0.01 * expected + 1e-7))
            return false;
    }
    return true;
}

static int check_left_over(const Binding *binding, const Weights *weights, Error *error) {
    const Checkpoint *checkpoint = binding->checkpoint;
    for (size_t i = 0; i < checkpoint->n_tensors; i++) {
        const Tensor *tensor = &checkpoint->tensors[i];
        if (binding->bound[i])
            continue;
        if (tensor_harmless(tensor->name) == NULL)
            return refuse(binding, tensor->name, error);
        if (!are_frequencies(tensor, &checkpoint->config, &weights->rope_freqs))
            return error_set(
                error, ERROR_UNSUPPORTED,
                "%s: %.*s: holds other frequencies than rope.freq_base gives; convert the checkpoint again",
                binding->path, SV_ARGS(tensor->name));
    }
    return 0;
}

/* Frequencies are divided by them. */
static int check_rope_factors(const Tensor *factors, const char *path, Error *error) {
    for (size_t i = 0; factors->data != NULL && i < factors->shape[0]; i++) {
        double factor = element(factors, i);
        if (!(factor > 0) || !isfinite(factor))
            return error_set(error, ERROR_FORMAT, "%s: %.*s: factor %zu is %g, expected above 0; the file is damaged",
                             path, SV_ARGS(factors->name), i, factor);
    }
    return 0;
}

/* Both sets or neither, and where one ends and the other begins. */
static int check_long_rope(const Weights *weights, const ModelConfig *config, const char *path, Error *error) {
    bool has_long = weights->rope_long.data != NULL, has_short = weights->rope_short.data != NULL;
    if (!has_long && !has_short)
        return 0;
    if (!has_long || !has_short || weights->rope_freqs.data != NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: " ROPE_LONG_NAME " and " ROPE_SHORT_NAME " belong together, without rope_freqs.weight; "
                         "convert the checkpoint again",
                         path);
    if (config->rope_long.original_context == 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: has " ROPE_LONG_NAME ", but not the context from which on it counts "
                         "(rope.scaling.original_context_length); convert the checkpoint again",
                         path);
    return 0;
}

static int bind_all(Binding *binding, Weights *weights, Error *error) {
    const ModelConfig *config = &binding->checkpoint->config;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++) {
        const TensorRole *role = &TENSOR_ROLES[i];
        for (size_t layer = 0; role_in_family(role, config->family) && layer < role_copies(role, config); layer++)
            if (bind_role(binding, role, layer, role_tensor(role, weights, layer), error) < 0)
                return error->code;
    }
    if (check_rope_factors(&weights->rope_freqs, binding->path, error) < 0 ||
        check_rope_factors(&weights->rope_long, binding->path, error) < 0 ||
        check_rope_factors(&weights->rope_short, binding->path, error) < 0 ||
        check_long_rope(weights, config, binding->path, error) < 0)
        return error->code;
    return check_left_over(binding, weights, error);
}

int weights_bind(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error) {
    *weights = (Weights){.layers = calloc(checkpoint->config.n_layers, sizeof *weights->layers)};
    if (weights->layers == NULL)
        return error_memory(error, "the list of layers", checkpoint->config.n_layers * sizeof *weights->layers);
    Binding binding = {checkpoint, path, calloc(checkpoint->n_tensors + 1, sizeof *binding.bound)};
    int status = binding.bound == NULL ? error_memory(error, "the list of tensors", checkpoint->n_tensors)
                                       : bind_all(&binding, weights, error);
    free(binding.bound);
    if (status < 0)
        weights_free(weights);
    return status;
}

void weights_free(Weights *weights) {
    free(weights->layers);
    *weights = (Weights){0};
}

size_t weights_bytes_per_token(const Weights *weights, const ModelConfig *config) {
    size_t bytes = 0;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        for (size_t layer = 0; layer < role_copies(&TENSOR_ROLES[i], config); layer++) {
            const Tensor *tensor = role_tensor(&TENSOR_ROLES[i], weights, layer);
            switch (TENSOR_ROLES[i].use) {
            case TENSOR_MATRIX:
            case TENSOR_VECTOR:
                bytes += tensor->size_bytes;
                break;
            case TENSOR_ROWS:
                bytes += tensor->size_bytes / tensor_n_rows(tensor);
                break;
            case TENSOR_HOST:
                break;
            }
        }
    return bytes;
}

static bool is_finite(const Tensor *tensor) {
    TensorDecode *decode = tensor_decoder(tensor->type, cpu_best_simd_level());
    size_t n = tensor->shape[0] * tensor_n_rows(tensor);
    float block[256];
    for (size_t first = 0; first < n; first += 256) {
        size_t count = at_most(n - first, 256);
        decode(tensor, first, count, block);
        if (!all_finite(block, count))
            return false;
    }
    return true;
}

const Tensor *weights_find_nonfinite(const Checkpoint *checkpoint) {
    for (size_t i = 0; i < checkpoint->n_tensors; i++)
        if (!is_finite(&checkpoint->tensors[i]))
            return &checkpoint->tensors[i];
    return NULL;
}
