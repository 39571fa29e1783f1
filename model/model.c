/* Opening of models and contexts; see model.h. */
#include "model/model.h"

#include "base/block_decode.h"
#include "base/checked.h"
#include "checkpoints/open.h"
#include "kvcache/policy_check.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* The backend gets all tensors twice, in the same order: announce(), then upload(). */
typedef struct Upload {
    Model *model;
    int (*give)(Backend *backend, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);
} Upload;

/* Pages of the file that the backend will not read again need not stay in memory. Vectors are small, and may be copies
 * that no file brings back. */
static int give_tensors(const Upload *upload, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error) {
    if (upload->give(upload->model->backend, tensors, n_tensors, use, error) < 0)
        return error->code;
    for (size_t i = 0; i < n_tensors; i++)
        if (tensors[i]->uploaded != NULL && use != TENSOR_VECTOR)
            mapped_file_let_go(tensors[i]->data, tensors[i]->size_bytes);
    return 0;
}

enum { MOST_MATRICES = 8 }; /* of a product */

/* The matrices of one product, in the order of its matmul() in forward.c. */
static int give_product(const Upload *upload, Product product, size_t layer, Error *error) {
    Tensor *matrices[MOST_MATRICES] = {NULL};
    size_t n = 0;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        if (TENSOR_ROLES[i].product == product && TENSOR_ROLES[i].use == TENSOR_MATRIX) {
            assert(n < MOST_MATRICES);
            matrices[n++] = role_tensor(&TENSOR_ROLES[i], &upload->model->weights, layer);
        }
    return give_tensors(upload, matrices, n, TENSOR_MATRIX, error);
}

static bool begins_product(const TensorRole *role) {
    return role == TENSOR_ROLES || role[-1].use != TENSOR_MATRIX || role[-1].product != role->product;
}

static int give_role(const Upload *upload, const TensorRole *role, size_t layer, Error *error) {
    Weights *w = &upload->model->weights;
    Tensor *tensor = role_tensor(role, w, layer);
    bool tied = tensor->data == w->output.data;
    switch (role->use) {
    case TENSOR_MATRIX:
        return begins_product(role) ? give_product(upload, role->product, layer, error) : 0;
    case TENSOR_ROWS:
        return tied ? 0 : give_tensors(upload, &tensor, 1, TENSOR_ROWS, error);
    case TENSOR_VECTOR:
        return tensor->data != NULL ? give_tensors(upload, &tensor, 1, TENSOR_VECTOR, error) : 0;
    case TENSOR_HOST:
        return 0;
    }
    return 0;
}

static int give_roles(const Upload *upload, bool in_layer, size_t layer, Error *error) {
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        if (TENSOR_ROLES[i].in_layer == in_layer && give_role(upload, &TENSOR_ROLES[i], layer, error) < 0)
            return error->code;
    return 0;
}

/* Layer after layer, as a token goes through them, then the rest. */
static int give_all(const Upload *upload, Error *error) {
    for (size_t layer = 0; layer < upload->model->checkpoint.config.n_layers; layer++)
        if (give_roles(upload, true, layer, error) < 0)
            return error->code;
    return give_roles(upload, false, 0, error);
}

static int upload_weights(Model *model, Error *error) {
    Weights *w = &model->weights;
    const BackendOps *ops = model->backend->ops;
    if (ops->announce != NULL && give_all(&(Upload){model, ops->announce}, error) < 0)
        return error->code;
    if (give_all(&(Upload){model, ops->upload}, error) < 0)
        return error->code;
    if (w->token_embd.data == w->output.data)
        w->token_embd = w->output;
    return 0;
}

int backend_check(const Backend *backend, const ModelConfig *config, Error *error) {
    const char *lacking = backend->ops->lacks != NULL ? backend->ops->lacks(config) : NULL;
    if (lacking == NULL)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "models of family '%s' (%s) need %s, which --device %s does not have; take --device cpu",
                     config->family->name, config->family->members, lacking, backend->device);
}

int model_open(Model *model, const char *path, Backend *backend, Error *error) {
    *model = (Model){0};
    if (checkpoint_open(&model->checkpoint, path, error) == 0)
        return model_open_checkpoint(model, path, backend, error);
    backend->ops->close(backend);
    return error->code;
}

int model_open_checkpoint(Model *model, const char *path, Backend *backend, Error *error) {
    model->backend = backend;
    int status = backend_check(backend, &model->checkpoint.config, error);
    if (status == 0)
        status = weights_bind(&model->weights, &model->checkpoint, path, error);
    if (status == 0)
        status = upload_weights(model, error);
    if (status < 0)
        model_close(model);
    return status;
}

void model_close(Model *model) {
    weights_free(&model->weights);
    checkpoint_close(&model->checkpoint);
    if (model->backend != NULL)
        model->backend->ops->close(model->backend);
    *model = (Model){0};
}

LayerRope layer_rope(const ModelConfig *config, size_t layer) {
    if (layer_set_has(&config->no_rope, layer))
        return ROPE_OF_NONE;
    return layer_set_has(&config->local, layer) && config->local_rope_theta > 0 ? ROPE_OF_LOCAL : ROPE_OF_MODEL;
}

static bool has_rope(const ModelConfig *config, LayerRope rope) {
    for (size_t layer = 0; layer < config->n_layers; layer++)
        if (layer_rope(config, layer) == rope)
            return true;
    return false;
}

KvShape model_cache_shape(const ModelConfig *config, size_t n_ctx, size_t n_batch) {
    return (KvShape){.n_layers = config->n_layers,
                     .n_kv_heads = config->n_kv_heads,
                     .head_dim = config->head_dim,
                     .n_ctx = n_ctx,
                     .n_batch = n_batch,
                     .local = config->local,
                     .lookback = config->lookback};
}

/* Elements a token. */
static size_t rotation_width(const Context *context, LayerRope rope) {
    return context->ropes[rope].frequencies != NULL ? context->model->checkpoint.config.head_dim : 0;
}

/* Cuts an arena into arrays: with base NULL only their total size is computed. */
static size_t lay_out(Context *context, float *base) {
    const ModelConfig *c = &context->model->checkpoint.config;
    const struct {
        float **array;
        size_t width; /* elements a token */
    } parts[] = {
        {&context->x, c->n_embd},
        {&context->q, c->n_heads * c->head_dim},
        {&context->attended, c->n_heads * c->head_dim},
        {&context->k, c->n_kv_heads * c->head_dim},
        {&context->v, c->n_kv_heads * c->head_dim},
        {&context->gate, c->n_ffn},
        {&context->up, c->n_ffn},
        {&context->device_logits, c->n_vocab},
        {&context->ropes[ROPE_OF_MODEL].rotation, rotation_width(context, ROPE_OF_MODEL)},
        {&context->ropes[ROPE_OF_MODEL].shift_rotation, rotation_width(context, ROPE_OF_MODEL)},
        {&context->ropes[ROPE_OF_LOCAL].rotation, rotation_width(context, ROPE_OF_LOCAL)},
        {&context->ropes[ROPE_OF_LOCAL].shift_rotation, rotation_width(context, ROPE_OF_LOCAL)},
        {&context->ropes[ROPE_OF_NONE].rotation, rotation_width(context, ROPE_OF_NONE)},
        {&context->ropes[ROPE_OF_NONE].shift_rotation, rotation_width(context, ROPE_OF_NONE)},
    };
    size_t offset = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base != NULL)
            *parts[i].array = base + offset;
        offset += (parts[i].width * context->n_batch + 15) / 16 * 16;
    }
    return offset * sizeof(float);
}

const Tensor *context_rope_factors(const Context *context) {
    const Weights *weights = &context->model->weights;
    const LongRope *rope = &context->model->checkpoint.config.rope_long;
    const Tensor *factors = weights->rope_long.data == NULL           ? &weights->rope_freqs
                            : context->n_ctx > rope->original_context ? &weights->rope_long
                                                                      : &weights->rope_short;
    return factors->data == NULL ? NULL : factors;
}

/* Frequency of pair i: theta^(-2i / head_dim), divided by the linear scaling factor and by the model's own factors;
 * local layers with a base of their own have neither, and layers without RoPE turn by 0. */
static void fill_frequencies(const Context *context, LayerRope rope, double *frequencies) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const Tensor *factors = context_rope_factors(context);
    for (size_t i = 0; i < config->head_dim / 2; i++) {
        float factor = 1;
        if (factors != NULL)
            tensor_decoder(factors->type, SIMD_SCALAR)(factors, i, 1, &factor);
        double exponent = -2.0 * (double)i / (double)config->head_dim;
        frequencies[i] = rope == ROPE_OF_NONE ? 0
                         : rope == ROPE_OF_LOCAL
                             ? pow(config->local_rope_theta, exponent)
                             : pow(config->rope_theta, exponent) / config->rope_scale / (double)factor;
    }
}

static size_t frequency_bytes(const Context *context) {
    return context->model->checkpoint.config.head_dim / 2 * sizeof(double);
}

static int allocate_frequencies(Context *context, LayerRope rope, Error *error) {
    Backend *b = context->model->backend;
    size_t size_bytes = frequency_bytes(context);
    double *frequencies = malloc(size_bytes), *there = NULL;
    if (frequencies == NULL)
        return error_memory(error, "RoPE's frequencies", size_bytes);
    fill_frequencies(context, rope, frequencies);
    there = context->ropes[rope].frequencies = b->ops->allocate(b, size_bytes, "RoPE's frequencies", error);
    int status = there == NULL ? error->code : b->ops->write(b, there, frequencies, size_bytes, error);
    free(frequencies);
    return status;
}

static int allocate(Context *context, const KvPolicy *policy, Error *error) {
    Backend *b = context->model->backend;
    const ModelConfig *config = &context->model->checkpoint.config;
    if (b->ops->reserve(b, config, context->n_batch, error) < 0)
        return error->code;
    KvShape shape = model_cache_shape(config, context->n_ctx, context->n_batch);
    if (kv_policy_check(policy, config->n_layers, config->head_dim, context->n_ctx, error) < 0 ||
        b->ops->open_cache(b, &context->cache, &shape, policy, "the KV cache", error) < 0)
        return error->code;
    for (LayerRope rope = 0; rope < N_LAYER_ROPES; rope++)
        if (has_rope(config, rope) && allocate_frequencies(context, rope, error) < 0)
            return error->code;
    context->arena_bytes = lay_out(context, NULL);
    context->arena = b->ops->allocate(b, context->arena_bytes, "activations", error);
    if (context->arena == NULL)
        return error->code;
    lay_out(context, context->arena);

    context->logits = calloc(context->n_batch * config->n_vocab, sizeof *context->logits);
    if (context->logits == NULL)
        return error_memory(error, "logits", context->n_batch * config->n_vocab * sizeof *context->logits);
    return 0;
}

int context_open(Context *context, Model *model, const KvPolicy *policy, size_t n_ctx, size_t n_batch, Error *error) {
    *context = (Context){.model = model, .n_ctx = n_ctx, .n_batch = n_batch == 0 ? DEFAULT_BATCH : n_batch};
    int status = allocate(context, policy, error);
    if (status < 0)
        context_close(context);
    return status;
}

void context_close(Context *context) {
    if (context->model == NULL)
        return;
    Backend *b = context->model->backend;
    for (size_t i = 0; i < sizeof context->steps / sizeof *context->steps; i++)
        b->ops->release_step(b, context->steps[i]);
    b->ops->close_cache(b, &context->cache);
    b->ops->release(b, context->arena, context->arena_bytes);
    for (LayerRope rope = 0; rope < N_LAYER_ROPES; rope++)
        b->ops->release(b, context->ropes[rope].frequencies, frequency_bytes(context));
    free(context->logits);
    *context = (Context){0};
}

size_t context_batch(const Context *context, size_t n_left) {
    return at_most(n_left, context->n_batch - context->cache.n_tokens % context->n_batch);
}

static int read_memory(void *user, void *host, const void *from, size_t size_bytes, Error *error) {
    Backend *b = user;
    return b->ops->read(b, host, from, size_bytes, error);
}

static int write_memory(void *user, void *to, const void *host, size_t size_bytes, Error *error) {
    Backend *b = user;
    return b->ops->write(b, to, host, size_bytes, error);
}

KvMemory context_memory(const Context *context) {
    return (KvMemory){context->model->backend, read_memory, write_memory};
}

void context_clear(Context *context) {
    kvcache_clear(&context->cache);
}
