/* Binding of tensors to roles by table; see weights.h. */
#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A tensor that every layer has. */
typedef struct LayerRole {
    const char *suffix;
    size_t offset; /* in LayerWeights */
    size_t columns, rows;
} LayerRole;

static int check_shape(const Tensor *tensor, size_t columns, size_t rows, const char *path, Error *error) {
    if (tensor->shape[0] == columns && tensor_n_rows(tensor) == rows && tensor->shape[1] == rows)
        return 0;
    bool transposed = tensor->shape[0] == rows && tensor->shape[1] == columns;
    return error_set(error, ERROR_FORMAT, "%s: %.*s: expected [%zu, %zu], file has [%zu, %zu]; %s", path,
                     SV_ARGS(tensor->name), columns, rows, tensor->shape[0], tensor_n_rows(tensor),
                     transposed ? "was it exported transposed?" : "its metadata belongs to another model");
}

static int bind(Tensor *out, const Checkpoint *checkpoint, const char *name, size_t columns, size_t rows,
                const char *path, Error *error) {
    const Tensor *tensor = checkpoint_tensor(checkpoint, name);
    if (tensor == NULL)
        return error_set(error, ERROR_FORMAT, "%s: missing tensor %s; convert the checkpoint again", path, name);
    *out = *tensor;
    if (rows == 1 && tensor->type != TYPE_F32) /* norms and RoPE factors: every converter leaves them in F32 */
        return error_set(error, ERROR_UNSUPPORTED, "%s: %s: is %s, expected F32; convert the checkpoint again", path,
                         name, tensor_type_info(tensor->type)->name);
    return check_shape(tensor, columns, rows, path, error);
}

static int bind_layers(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error) {
    const ModelConfig *c = &checkpoint->config;
    size_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    const LayerRole roles[] = {
        {"attn_norm", offsetof(LayerWeights, attn_norm), c->n_embd, 1},
        {"attn_q", offsetof(LayerWeights, attn_q), c->n_embd, q_dim},
        {"attn_k", offsetof(LayerWeights, attn_k), c->n_embd, kv_dim},
        {"attn_v", offsetof(LayerWeights, attn_v), c->n_embd, kv_dim},
        {"attn_output", offsetof(LayerWeights, attn_output), q_dim, c->n_embd},
        {"ffn_norm", offsetof(LayerWeights, ffn_norm), c->n_embd, 1},
        {"ffn_gate", offsetof(LayerWeights, ffn_gate), c->n_embd, c->n_ffn},
        {"ffn_up", offsetof(LayerWeights, ffn_up), c->n_embd, c->n_ffn},
        {"ffn_down", offsetof(LayerWeights, ffn_down), c->n_ffn, c->n_embd},
    };
    for (size_t layer = 0; layer < c->n_layers; layer++)
        for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, roles[i].suffix);
            Tensor *out = (Tensor *)(void *)((char *)&weights->layers[layer] + roles[i].offset);
            if (bind(out, checkpoint, name, roles[i].columns, roles[i].rows, path, error) < 0)
                return error->code;
        }
    return 0;
}

/* Tensors that no role takes would be ignored in silence, and the text would be wrong: attention biases, say. */
static int refuse_unknown(const Checkpoint *checkpoint, const char *path, Error *error) {
    for (size_t i = 0; i < checkpoint->n_tensors; i++) {
        StringView name = checkpoint->tensors[i].name;
        StringView bias = sv(".bias");
        if (name.length > bias.length && sv_find(name, bias, 0) == name.length - bias.length)
            return error_set(error, ERROR_UNSUPPORTED,
                             "%s: %.*s: biases are not supported in this model family; use a "
                             "checkpoint without them",
                             path, SV_ARGS(name));
    }
    return 0;
}

static int bind_all(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error) {
    const ModelConfig *config = &checkpoint->config;
    const char *output = checkpoint_tensor(checkpoint, "output.weight") != NULL ? "output.weight" : "token_embd.weight";
    if (refuse_unknown(checkpoint, path, error) < 0 ||
        bind(&weights->token_embd, checkpoint, "token_embd.weight", config->n_embd, config->n_vocab, path, error) < 0 ||
        bind(&weights->output_norm, checkpoint, "output_norm.weight", config->n_embd, 1, path, error) < 0 ||
        bind(&weights->output, checkpoint, output, config->n_embd, config->n_vocab, path, error) < 0)
        return error->code;
    if (checkpoint_tensor(checkpoint, "rope_freqs.weight") != NULL &&
        bind(&weights->rope_freqs, checkpoint, "rope_freqs.weight", config->head_dim / 2, 1, path, error) < 0)
        return error->code;
    return bind_layers(weights, checkpoint, path, error);
}

int weights_bind(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error) {
    *weights = (Weights){.layers = calloc(checkpoint->config.n_layers, sizeof *weights->layers)};
    if (weights->layers == NULL)
        return error_memory(error, "the list of layers", checkpoint->config.n_layers * sizeof *weights->layers);
    int status = bind_all(weights, checkpoint, path, error);
    if (status < 0)
        weights_free(weights);
    return status;
}

void weights_free(Weights *weights) {
    free(weights->layers);
    *weights = (Weights){0};
}

size_t weights_bytes_per_token(const Weights *weights, size_t n_layers) {
    const Tensor *embedding = &weights->token_embd;
    size_t bytes = embedding->size_bytes / tensor_n_rows(embedding);
    bytes += weights->output_norm.size_bytes + weights->output.size_bytes;
    for (size_t layer = 0; layer < n_layers; layer++) {
        const LayerWeights *w = &weights->layers[layer];
        const Tensor *tensors[] = {&w->attn_norm, &w->attn_q,   &w->attn_k, &w->attn_v,  &w->attn_output,
                                   &w->ffn_norm,  &w->ffn_gate, &w->ffn_up, &w->ffn_down};
        for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
            bytes += tensors[i]->size_bytes;
    }
    return bytes;
}

static bool is_finite(const Tensor *tensor) {
    TensorDecode *decode = tensor_decoder(tensor->type, cpu_best_simd_level());
    size_t n = tensor->shape[0] * tensor_n_rows(tensor);
    float block[256];
    for (size_t first = 0; first < n; first += 256) {
        size_t count = n - first < 256 ? n - first : 256;
        decode(tensor, first, count, block);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]))
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
