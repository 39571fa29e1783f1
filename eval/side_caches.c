/* See side_caches.h. */
#include "eval/side_caches.h"

#include <stdlib.h>

static int open_caches(SideCaches *side, const KvPolicy *policies, size_t n, Error *error) {
    const Context *c = side->context;
    const ModelConfig *config = &c->model->checkpoint.config;
    Backend *b = c->model->backend;
    side->caches = calloc(n, sizeof *side->caches);
    if (side->caches == NULL)
        return error_memory(error, "further KV caches", n * sizeof *side->caches);
    for (; side->n < n; side->n++)
        if (b->ops->open_cache(b, &side->caches[side->n], &c->cache.layout.shape, &policies[side->n],
                               "a further KV cache", error) < 0)
            return error->code;
    side->attended_bytes = c->n_batch * config->n_heads * config->head_dim * sizeof(float);
    side->attended = b->ops->allocate(b, side->attended_bytes, "a second attention output", error);
    return side->attended != NULL ? 0 : error->code;
}

int side_caches_open(SideCaches *side, Context *context, const KvPolicy *policies, size_t n,
                     void (*on_attended)(void *user, size_t layer, size_t n_tokens), void *user, Error *error) {
    *side = (SideCaches){.context = context};
    if (open_caches(side, policies, n, error) < 0)
        return error->code;
    context->on_attended = on_attended;
    context->on_attended_user = user;
    return 0;
}

void side_caches_close(SideCaches *side) {
    if (side->context == NULL)
        return;
    Backend *b = side->context->model->backend;
    side->context->on_attended = NULL;
    for (size_t i = 0; i < side->n; i++)
        b->ops->close_cache(b, &side->caches[i]);
    b->ops->release(b, side->attended, side->attended_bytes);
    free(side->caches);
    *side = (SideCaches){0};
}

void side_caches_clear(SideCaches *side) {
    for (size_t i = 0; i < side->n; i++)
        kvcache_clear(&side->caches[i]);
}

void side_caches_attend(SideCaches *side, size_t i, size_t layer, size_t n_tokens) {
    const Context *c = side->context;
    const ModelConfig *config = &c->model->checkpoint.config;
    const ScoreForm scores = {config->score_divisor, config->score_cap};
    Backend *b = c->model->backend;
    KvCache *cache = &side->caches[i];
    b->ops->append(b, cache, layer, n_tokens, config->n_heads, config->rope_pairing, NULL, c->q, c->k, c->v);
    b->ops->attention(b, cache, layer, n_tokens, config->n_heads, config->rope_pairing, scores, c->q, NULL,
                      side->attended);
    if (layer + 1 == config->n_layers)
        kvcache_advance(cache, n_tokens);
}
