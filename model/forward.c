/* The Llama transformer, once, for every family and backend (Touvron et al. 2023): pre-norm blocks of grouped-query
 * attention with RoPE and a SwiGLU feed-forward network. Where families differ it asks for a field of the configuration
 * (checkpoints/config.h) or for a tensor, never for a family. */
#include "model/model.h"

#include "base/finite.h"

/* StreamingLLM (Xiao et al. 2023) counts positions inside the cache: for a query that no longer sees D tokens, the sink
 * is D positions nearer. Scores depend on differences alone, so the query is rotated back by D where it meets the sink,
 * and no key is ever touched. Layers of one policy and RoPE share the angles. NULL where the policy drops nothing. */
static const float *prepare_shift(Context *context, RopeAngles *rope, size_t layer, size_t n_tokens) {
    Backend *b = context->model->backend;
    const KvLayerPolicy *policy = kvcache_layer_policy(&context->cache.layout, layer);
    if (!kv_layer_shifts(policy))
        return NULL;
    if (rope->shift_policy != policy)
        b->ops->turns_back(b, &context->cache, layer, rope->frequencies, n_tokens, rope->shift_rotation);
    rope->shift_policy = policy;
    return rope->shift_rotation;
}

/* NULL where the checkpoint has no such tensor. */
static const Tensor *where_bound(const Tensor *tensor) {
    return tensor->data != NULL ? tensor : NULL;
}

/* None where the checkpoint has no such gain. */
static RmsNorm norm_by(const Context *context, const Tensor *gain) {
    return (RmsNorm){where_bound(gain), context->model->checkpoint.config.norm_eps};
}

/* Each head of a batch's queries or keys, or each token's all: by the length of the gain. */
static void normalize_heads(Context *context, const Tensor *gain, float *x, size_t n_elements) {
    Backend *b = context->model->backend;
    if (gain->data != NULL)
        b->ops->normalize(b, norm_by(context, gain), n_elements / gain->shape[0], x);
}

/* The matrices of each matmul() are those of a Product, in the order of TENSOR_ROLES: they were uploaded so. */
static void attention_block(Context *context, size_t layer, size_t n_tokens) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const LayerWeights *w = &context->model->weights.layers[layer];
    Backend *b = context->model->backend;
    const BackendOps *ops = b->ops;
    RopeAngles *rope = &context->ropes[layer_rope(config, layer)];
    ScoreForm scores = {config->score_divisor, config->score_cap};
    const WeightProduct qkv[] = {{&w->attn_q, context->q, where_bound(&w->attn_q_bias)},
                                 {&w->attn_k, context->k, where_bound(&w->attn_k_bias)},
                                 {&w->attn_v, context->v, where_bound(&w->attn_v_bias)}};

    ops->matmul(b, qkv, 3, norm_by(context, &w->attn_norm), context->x, n_tokens);
    normalize_heads(context, &w->attn_q_norm, context->q, n_tokens * config->n_heads * config->head_dim);
    normalize_heads(context, &w->attn_k_norm, context->k, n_tokens * config->n_kv_heads * config->head_dim);
    ops->append(b, &context->cache, layer, n_tokens, config->n_heads, config->rope_pairing, rope->rotation, context->q,
                context->k, context->v);
    ops->attention(b, &context->cache, layer, n_tokens, config->n_heads, config->rope_pairing, scores, context->q,
                   prepare_shift(context, rope, layer, n_tokens), context->attended);
    if (context->on_attended != NULL)
        context->on_attended(context->on_attended_user, layer, n_tokens);
    ops->matmul_add(b, &(WeightProduct){&w->attn_output, context->x, NULL}, norm_by(context, &w->attn_post_norm),
                    context->attended, n_tokens);
}

static void feed_forward_block(Context *context, size_t layer, size_t n_tokens) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const LayerWeights *w = &context->model->weights.layers[layer];
    Backend *b = context->model->backend;
    const BackendOps *ops = b->ops;
    const WeightProduct gate_up[] = {{&w->ffn_gate, context->gate, NULL}, {&w->ffn_up, context->up, NULL}};

    ops->matmul_gated(b, gate_up, config->family->activation, norm_by(context, &w->ffn_norm), context->x, n_tokens);
    ops->matmul_add(b, &(WeightProduct){&w->ffn_down, context->x, NULL}, norm_by(context, &w->ffn_post_norm),
                    context->gate, n_tokens);
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

static void prepare_rotations(Context *context, size_t n_tokens) {
    Backend *b = context->model->backend;
    size_t head_dim = context->model->checkpoint.config.head_dim;
    for (RopeAngles *rope = context->ropes; rope < context->ropes + N_LAYER_ROPES; rope++) {
        rope->shift_policy = NULL;
        if (rope->frequencies != NULL)
            b->ops->turns(b, rope->frequencies, head_dim, n_tokens, rope->rotation);
    }
}

/* All work of a batch: the logits of its last n_rows tokens. */
static void run_batch(Context *context, size_t n_tokens, size_t n_rows) {
    const ModelConfig *config = &context->model->checkpoint.config;
    const Weights *w = &context->model->weights;
    Backend *b = context->model->backend;
    prepare_rotations(context, n_tokens);
    b->ops->embed(b, &w->token_embd, config->embedding_scale > 0 ? config->embedding_scale : 1, n_tokens, context->x);
    for (size_t layer = 0; layer < config->n_layers; layer++) {
        attention_block(context, layer, n_tokens);
        feed_forward_block(context, layer, n_tokens);
    }
    if (n_rows == 0)
        return;
    const WeightProduct logits = {&w->output, context->device_logits, NULL};
    const float *x = context->x + (n_tokens - n_rows) * config->n_embd;
    b->ops->matmul(b, &logits, 1, norm_by(context, &w->output_norm), x, n_rows);
    if (config->logit_cap > 0)
        b->ops->soft_cap(b, config->logit_cap, n_rows * config->n_vocab, context->device_logits);
}

static int read_logits(Context *context, size_t n_rows, Error *error) {
    Backend *b = context->model->backend;
    size_t n = n_rows * context->model->checkpoint.config.n_vocab;
    if (n == 0)
        return 0;
    if (b->ops->read(b, context->logits, context->device_logits, n * sizeof *context->logits, error) < 0)
        return error->code;
    return all_finite(context->logits, n) ? 0 : explain_nonfinite(context, error);
}

static int read_best(Context *context, Error *error) {
    Backend *b = context->model->backend;
    if (b->ops->read_best(b, &context->best, error) < 0)
        return error->code;
    return context->best >= 0 ? 0 : explain_nonfinite(context, error);
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
    Backend *b = context->model->backend;
    bool finds_best = wanted == LOGITS_BEST && b->ops->find_best != NULL;
    size_t n_rows = wanted == LOGITS_ALL ? n_tokens : wanted == LOGITS_NONE ? 0 : 1;
    /* Evaluators look between the calls. */
    BackendStep **step = n_tokens == 1 && context->on_attended == NULL ? &context->steps[n_rows + finds_best] : NULL;
    context->best = -1;
    if (!b->ops->begin(b, &context->cache, tokens, n_tokens, step)) {
        run_batch(context, n_tokens, n_rows);
        if (finds_best)
            b->ops->find_best(b, context->device_logits, context->model->checkpoint.config.n_vocab);
        b->ops->end(b);
    }
    kvcache_advance(&context->cache, n_tokens);
    return finds_best ? read_best(context, error) : read_logits(context, n_rows, error);
}
