/* See samples.h. */
#include "eval/kv_quant/samples.h"

#include "base/checked.h"
#include "eval/draws.h"

#include <stdlib.h>
#include <string.h>

/* ---- Made up */

/* Of a channel. */
typedef double Draw(uint64_t *random, size_t channel);

static double any_normal(uint64_t *random, size_t channel) {
    (void)channel;
    return draw_normal(random);
}

static double any_heavy(uint64_t *random, size_t channel) {
    (void)channel;
    return draw_heavy_tailed(random);
}

static double with_outliers(uint64_t *random, size_t channel) {
    return draw_normal(random) * (channel % 16 == 5 ? 20 : 1);
}

static CodecSample *add_sample(CodecSamples *samples, const char *name, size_t n_groups, size_t head_dim,
                               Error *error) {
    CodecSample *s = &samples->items[samples->count];
    size_t n = n_groups * SAMPLE_TOKENS * head_dim;
    *s = (CodecSample){name, {true, true}, n_groups, head_dim, calloc(n, sizeof(float))};
    if (s->values == NULL) {
        error_memory(error, name, n * sizeof(float));
        return NULL;
    }
    samples->count++;
    return s;
}

int samples_make(CodecSamples *samples, uint64_t seed, Error *error) {
    static const struct {
        const char *name;
        Draw *draw;
    } KINDS[] = {{"normal", any_normal}, {"heavy tails", any_heavy}, {"outlier channels", with_outliers}};
    for (size_t kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++) {
        CodecSample *s = add_sample(samples, KINDS[kind].name, SAMPLE_GROUPS, SAMPLE_HEAD_DIM, error);
        if (s == NULL)
            return error->code;
        for (size_t i = 0; i < s->n_groups * SAMPLE_TOKENS * s->head_dim; i++)
            s->values[i] = (float)KINDS[kind].draw(&seed, i % s->head_dim);
    }
    return 0;
}

/* ---- Captured */

typedef struct Capture {
    Context *context;
    CodecSample *sides[KV_SIDES]; /* groups by layer, head and token */
    size_t n_groups;              /* of a head */
    size_t n_before;              /* tokens of earlier batches */
    float *batch;                 /* (n_batch, n_kv_heads, head_dim) */
    Error error;
} Capture;

/* A batch's tokens to where their groups lie; those behind the last whole group have none. */
static void store_batch(const Capture *c, CodecSample *sample, size_t layer, size_t n_tokens) {
    size_t n_heads = c->context->cache.layout.shape.n_kv_heads, head_dim = sample->head_dim;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t head = 0; head < n_heads; head++) {
            size_t token = c->n_before + t, group = (layer * n_heads + head) * c->n_groups + token / SAMPLE_TOKENS;
            if (token < c->n_groups * SAMPLE_TOKENS)
                memcpy(sample->values + (group * SAMPLE_TOKENS + token % SAMPLE_TOKENS) * head_dim,
                       c->batch + (t * n_heads + head) * head_dim, head_dim * sizeof(float));
        }
}

static void on_attended(void *user, size_t layer, size_t n_tokens) {
    Capture *c = user;
    Backend *b = c->context->model->backend;
    const KvShape *shape = &c->context->cache.layout.shape;
    size_t size_bytes = n_tokens * shape->n_kv_heads * shape->head_dim * sizeof(float);
    const float *from[KV_SIDES] = {[KV_KEYS] = c->context->k, [KV_VALUES] = c->context->v};
    for (KvSide side = 0; side < KV_SIDES; side++) {
        if (c->error.code == 0 && b->ops->read(b, c->batch, from[side], size_bytes, &c->error) == 0)
            store_batch(c, c->sides[side], layer, n_tokens);
    }
    if (layer + 1 == shape->n_layers)
        c->n_before += n_tokens;
}

static int read_tokens(Capture *c, const TokenList *tokens, const volatile sig_atomic_t *interrupted, Error *error) {
    size_t n = c->n_groups * SAMPLE_TOKENS;
    c->context->on_attended = on_attended;
    c->context->on_attended_user = c;
    int status = 0;
    for (size_t at = 0; at < n && status == 0;) {
        size_t n_batch = context_batch(c->context, n - at);
        status = forward(c->context, tokens->ids + at, n_batch, LOGITS_NONE, error);
        if (status == 0 && c->error.code < 0)
            status = error_set(error, c->error.code, "%s", c->error.message);
        if (status == 0 && interrupted != NULL && *interrupted)
            status = error_set(error, ERROR_INTERRUPTED, "interrupted");
        at += n_batch;
    }
    c->context->on_attended = NULL;
    return status;
}

static int capture(CodecSamples *samples, Context *context, const TokenList *tokens,
                   const volatile sig_atomic_t *interrupted, Error *error) {
    static const char *const NAMES[KV_SIDES] = {[KV_KEYS] = "captured keys", [KV_VALUES] = "captured values"};
    const KvShape *shape = &context->cache.layout.shape;
    size_t n_tokens = at_most(at_most(tokens->count, context->n_ctx), CAPTURE_TOKENS);
    Capture c = {.context = context, .n_groups = n_tokens / SAMPLE_TOKENS};
    if (c.n_groups == 0)
        return error_set(error, ERROR_ARGUMENT,
                         "--text_file: %zu tokens go through the model, and a group is %d; give a longer text",
                         n_tokens, SAMPLE_TOKENS);
    for (KvSide side = 0; side < KV_SIDES; side++) {
        size_t n = shape->n_layers * shape->n_kv_heads * c.n_groups;
        c.sides[side] = add_sample(samples, NAMES[side], n, shape->head_dim, error);
        if (c.sides[side] == NULL)
            return error->code;
        c.sides[side]->has_side[side == KV_KEYS ? KV_VALUES : KV_KEYS] = false;
    }
    c.batch = malloc(context->n_batch * shape->n_kv_heads * shape->head_dim * sizeof *c.batch);
    if (c.batch == NULL)
        return error_memory(error, "a batch of keys", context->n_batch * shape->head_dim * sizeof *c.batch);
    int status = read_tokens(&c, tokens, interrupted, error);
    free(c.batch);
    return status;
}

int samples_capture(CodecSamples *samples, Session *session, StringView text, const volatile sig_atomic_t *interrupted,
                    Error *error) {
    TokenList tokens = {0};
    int status = tokenizer_encode(session->tokenizer, text, TOKENIZE_ADD_BOS, &tokens, error);
    if (status == 0)
        status = capture(samples, &session->context, &tokens, interrupted, error);
    token_list_free(&tokens);
    return status;
}

void samples_free(CodecSamples *samples) {
    for (size_t i = 0; i < samples->count; i++)
        free(samples->items[i].values);
    samples->count = 0;
}
