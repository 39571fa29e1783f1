/* The Llama transformer, once, for every family and backend (Touvron et al. 2023): pre-norm blocks of grouped-query
 * attention with RoPE and a SwiGLU feed-forward network. */
#include "model/model.h"

#include "base/finite.h"

#include <math.h>

/* Cosine and sine of an angle for each pair of a head's elements, in double before rounding. */
static void fill_rotation(const Context *context, double position, float *rotation) {
    for (size_t i = 0; i < context->model->checkpoint.config.head_dim / 2; i++) {
        double angle = position * context->frequencies[i];
        rotation[2 * i] = (float)cos(angle);
        rotation[2 * i + 1] = (float)sin(angle);
    }
}

static void write_rotation(Context *context, size_t n_tokens, float *to) {
    Backend *b = context->model->backend;
    b->ops->write(b, to, context->host_rotation, n_tokens * context->model->checkpoint.config.head_dim);
}

static void prepare_rotation(Context *context, size_t position, size_t n_tokens) {
    size_t head_dim = context->model->checkpoint.config.head_dim;
    for (size_t t = 0; t < n_tokens; t++)
        fill_rotation(context, (double)(position + t), context->host_rotation + t * head_dim);
    write_rotation(context, n_tokens, context->rotation);
    context->shift_policy = NULL;
}

/* StreamingLLM (Xiao et al. 2023) counts positions inside the cache: for a query that no longer sees D tokens, the sink
 * is D positions nearer. Scores depend on differences alone, so the query is rotated back by D where it meets the sink,
 * and no key is ever touched. Layers of one policy share the angles. NULL where the batch's last token sees all. */
static const float *prepare_shift(Context *context, size_t layer, size_t position, size_t n_tokens) {
    const KvCache *cache = &context->cache;
    size_t head_dim = context->model->checkpoint.config.head_dim;
    if (kvcache_dropped(cache, layer, position + n_tokens - 1) == 0)
        return NULL;
    if (context->shift_policy != kvcache_layer_policy(&cache->layout, layer)) {
        for (size_t t = 0; t < n_tokens; t++)
            fill_rotation(context, -(double)kvcache_dropped(cache, layer, position + t),
                          context->host_rotation + t * head_dim);
        write_rotation(context, n_tokens, context->shift_rotation);
        context->shift_policy = kvcache_layer_policy(&cache->layout, layer);
    }
    return context->shift_rotation;
}

/* NULL where the checkpoint has no such tensor. */
static const Tensor *where_bound(const Tensor *tensor) {
    return tensor->data != NULL ? tensor : NULL;
}

/* The matrices of each matmul() are those of a Product, in the order of TENSOR_ROLES: they were uploaded so. */
static void attention_block(Context *context, size_t layer, size_t position, size_t n_tokens) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const LayerWeights *w = &context->model->weights.layers[layer];
    Backend *b = context->model->backend;
    const BackendOps *ops = b->ops;
    const WeightProduct qkv[] = {{&w->attn_q, context->q, where_bound(&w->attn_q_bias)},
                                 {&w->attn_k, context->k, where_bound(&w->attn_k_bias)},
                                 {&w->attn_v, context->v, where_bound(&w->attn_v_bias)}};

    ops->rmsnorm(b, context->x, &w->attn_norm, config->norm_eps, n_tokens, context->normed);
    ops->matmul(b, qkv, 3, context->normed, n_tokens);
    ops->rope(b, context->q, n_tokens, config->n_heads, config->head_dim, config->family->rope_pairing,
              context->rotation);
    ops->rope(b, context->k, n_tokens, config->n_kv_heads, config->head_dim, config->family->rope_pairing,
              context->rotation);
    ops->append(b, &context->cache, layer, n_tokens, context->k, context->v);
    ops->attention(b, &context->cache, layer, n_tokens, config->n_heads, config->family->rope_pairing, context->q,
                   prepare_shift(context, layer, position, n_tokens), context->attended);
    if (context->on_attended != NULL)
        context->on_attended(context->on_attended_user, layer, n_tokens);
    ops->matmul(b, &(WeightProduct){&w->attn_output, context->normed, NULL}, 1, context->attended, n_tokens);
    ops->add(b, context->x, context->normed, n_tokens * config->n_embd);
}

static void feed_forward_block(Context *context, size_t layer, size_t n_tokens) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const LayerWeights *w = &context->model->weights.layers[layer];
    Backend *b = context->model->backend;
    const BackendOps *ops = b->ops;
    const WeightProduct gate_up[] = {{&w->ffn_gate, context->gate, NULL}, {&w->ffn_up, context->up, NULL}};

    ops->rmsnorm(b, context->x, &w->ffn_norm, config->norm_eps, n_tokens, context->normed);
    ops->matmul(b, gate_up, 2, context->normed, n_tokens);
    ops->swiglu(b, context->gate, context->up, n_tokens * config->n_ffn);
    ops->matmul(b, &(WeightProduct){&w->ffn_down, context->normed, NULL}, 1, context->gate, n_tokens);
    ops->add(b, context->x, context->normed, n_tokens * config->n_embd);
}

static int explain_nonfinite(const Context *context, Error *error) {
    const Tensor *culprit = weights_find_nonfinite(&context->model->checkpoint);
    if (culprit != NULL)
        return error_set(error, ERROR_FORMAT,
                         "%.*s: holds NaN or infinity, so the logits are not finite; export the checkpoint again",
                         SV_ARGS(culprit->name));
    return error_set(
        error, ERROR_FORMAT,
        "the logits are not finite though all weights are: activations overflowed; the checkpoint is damaged");
}

/* Logits of the last `n_rows` tokens of the batch, to the host. */
static int compute_logits(Context *context, size_t n_tokens, size_t n_rows, Error *error) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const Weights *w = &context->model->weights;
    Backend *b = context->model->backend;
    const float *x = context->x + (n_tokens - n_rows) * config->n_embd;

    b->ops->rmsnorm(b, x, &w->output_norm, config->norm_eps, n_rows, context->normed);
    b->ops->matmul(b, &(WeightProduct){&w->output, context->device_logits, NULL}, 1, context->normed, n_rows);
    size_t size_bytes = n_rows * config->n_vocab * sizeof(float);
    if (b->ops->read(b, context->logits, context->device_logits, size_bytes, error) < 0)
        return error->code;
    return all_finite(context->logits, n_rows * config->n_vocab) ? 0 : explain_nonfinite(context, error);
}

static int check_tokens(const Context *context, const int32_t *tokens, size_t n_tokens, Error *error) {
    size_t n_vocab = context->model->checkpoint.config.n_vocab;
    if (n_tokens == 0 || n_tokens > context->n_batch)
        return error_set(error, ERROR_ARGUMENT, "a batch of %zu tokens; expected 1 to %zu", n_tokens, context->n_batch);
    if (!kvcache_has_room(&context->cache, n_tokens))
        return error_set(error, ERROR_ARGUMENT, "the context of %zu tokens is full; use a larger --n_ctx",
                         context->n_ctx);
    for (size_t t = 0; t < n_tokens; t++)
        if (tokens[t] < 0 || (size_t)tokens[t] >= n_vocab)
            return error_set(error, ERROR_ARGUMENT,
                             "token %d is not in the model's vocabulary of %zu; use the model's "
                             "own tokenizer",
                             tokens[t], n_vocab);
    return 0;
}

int forward(Context *context, const int32_t *tokens, size_t n_tokens, LogitsWanted wanted, Error *error) {
    if (check_tokens(context, tokens, n_tokens, error) < 0)
        return error->code;
    Model *model = context->model;
    size_t position = context->cache.n_tokens;
    prepare_rotation(context, position, n_tokens);
    model->backend->ops->embed(model->backend, &model->weights.token_embd, tokens, n_tokens, context->x);
    for (size_t layer = 0; layer < model->checkpoint.config.n_layers; layer++) {
        attention_block(context, layer, position, n_tokens);
        feed_forward_block(context, layer, n_tokens);
    }
    kvcache_advance(&context->cache, n_tokens);
    if (wanted == LOGITS_NONE)
        return 0;
    return compute_logits(context, n_tokens, wanted == LOGITS_ALL ? n_tokens : 1, error);
}
