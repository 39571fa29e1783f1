/* See attribution.h. */
#include "eval/perplexity/attribution.h"

#include "base/checked.h"
#include "base/half.h"
#include "eval/side_caches.h"

#include <math.h>
#include <stdlib.h>

typedef struct Squares {
    double error, size; /* sums of squares */
} Squares;

typedef struct HeadSums {
    Squares keys, values, output;
} HeadSums;

struct Attribution {
    Context *context; /* not owned: the cache under test */
    SideCaches side;  /* one, with the same keys and values in FP16 */
    size_t first_scored;
    float *host[2];  /* (n_batch, n_heads, head_dim) outputs with and without the policy */
    uint8_t *stored; /* a record, from the backend's memory */
    uint16_t *rows;  /* (group, row_dim of `full`) FP16, likewise */
    float *decoded;  /* (group, row_dim) */
    float *exact;    /* (group, row_dim); a record before that */
    HeadSums *sums;  /* (n_layers, n_kv_heads) */
};

static void add_squares(Squares *sums, const float *x, const float *exact, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double error = (double)x[i] - (double)exact[i];
        sums->error += error * error;
        sums->size += (double)exact[i] * (double)exact[i];
    }
}

static const KvCache *full_of(const Attribution *a) {
    return a->side.caches;
}

static HeadSums *sums_of(const Attribution *a, size_t layer, size_t kv_head) {
    return &a->sums[layer * full_of(a)->layout.shape.n_kv_heads + kv_head];
}

/* Lets the batch's queries attend to the full cache too. Nothing is ever dropped there, so no query is shifted. */
static void on_attended(void *user, size_t layer, size_t n_tokens) {
    Attribution *a = user;
    Context *c = a->context;
    Backend *b = c->model->backend;
    const ModelConfig *config = &c->model->checkpoint.config;
    size_t n_heads = config->n_heads, head_dim = config->head_dim, n_group = n_heads / config->n_kv_heads;
    size_t position = full_of(a)->n_tokens, row = n_heads * head_dim;
    side_caches_attend(&a->side, 0, layer, n_tokens);
    if (b->ops->read(b, a->host[0], c->attended, n_tokens * row * sizeof(float), NULL) < 0 ||
        b->ops->read(b, a->host[1], a->side.attended, n_tokens * row * sizeof(float), NULL) < 0)
        return; /* a device that failed fails again where forward() reads logits */
    for (size_t t = position < a->first_scored ? a->first_scored - position : 0; t < n_tokens; t++)
        for (size_t kv_head = 0; kv_head < config->n_kv_heads; kv_head++) {
            size_t at = t * row + kv_head * n_group * head_dim;
            add_squares(&sums_of(a, layer, kv_head)->output, a->host[0] + at, a->host[1] + at, n_group * head_dim);
        }
}

static size_t most_record_bytes(const KvCacheLayout *layout) {
    size_t most = 1;
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        for (size_t s = 0; s < layout->layers[layer].n_stores; s++)
            for (KvSide side = 0; side < KV_SIDES; side++)
                most = at_least(most, layout->layers[layer].stores[s].side[side].record_bytes);
    return most;
}

static int allocate(Attribution *a, Error *error) {
    const Context *c = a->context;
    const KvShape *shape = &c->cache.layout.shape;
    size_t row = c->model->checkpoint.config.n_heads * shape->head_dim, group = c->cache.layout.policy.group;
    a->host[0] = calloc(shape->n_batch * row, sizeof(float));
    a->host[1] = calloc(shape->n_batch * row, sizeof(float));
    a->stored = calloc(most_record_bytes(&c->cache.layout), 1);
    a->rows = calloc(group * full_of(a)->layout.row_dim, sizeof *a->rows);
    a->decoded = calloc(group * c->cache.layout.row_dim, sizeof(float));
    a->exact = calloc(group * c->cache.layout.row_dim, sizeof(float));
    a->sums = calloc(shape->n_layers * shape->n_kv_heads, sizeof *a->sums);
    if (a->host[0] == NULL || a->host[1] == NULL || a->stored == NULL || a->rows == NULL || a->decoded == NULL ||
        a->exact == NULL || a->sums == NULL)
        return error_memory(error, "error attribution", 2 * shape->n_batch * row * sizeof(float));
    return 0;
}

int attribution_open(Attribution **out, Context *context, Error *error) {
    Attribution *a = calloc(1, sizeof *a);
    if (a == NULL)
        return error_memory(error, "error attribution", sizeof *a);
    a->context = context;
    KvPolicy full = kv_policy_full();
    full.group = context->cache.layout.policy.group;
    if (side_caches_open(&a->side, context, &full, 1, on_attended, a, error) < 0 || allocate(a, error) < 0) {
        attribution_close(a);
        return error->code;
    }
    *out = a;
    return 0;
}

void attribution_close(Attribution *a) {
    if (a == NULL)
        return;
    side_caches_close(&a->side);
    free(a->host[0]);
    free(a->host[1]);
    free(a->stored);
    free(a->rows);
    free(a->decoded);
    free(a->exact);
    free(a->sums);
    free(a);
}

void attribution_begin(Attribution *attribution, size_t first_scored) {
    side_caches_clear(&attribution->side);
    attribution->first_scored = first_scored;
}

/* One side of a group of the policy's cache against the same tokens in the full cache. */
static int compare_group(Attribution *a, const KvEncoding *encoding, KvSide side, const uint8_t *record,
                         const uint8_t *rows, Squares *sums, Error *error) {
    Backend *b = a->context->model->backend;
    const KvGroup *group = &encoding->group;
    size_t head_dim = full_of(a)->layout.shape.head_dim, full_dim = full_of(a)->layout.row_dim;
    if (b->ops->read(b, a->stored, record, encoding->record_bytes, error) < 0 ||
        b->ops->read(b, a->rows, rows, group->n_tokens * full_dim * sizeof *a->rows, error) < 0)
        return error->code;
    kv_stored_decode(a->context->cache.layout.form, encoding->codec, side, group, a->stored, (uint8_t *)a->exact,
                     a->decoded);
    if (group->rotated)
        kv_rotate(a->decoded, group->n_tokens, group->head_dim);
    for (size_t t = 0; t < group->n_tokens; t++) {
        for (size_t d = 0; d < head_dim; d++)
            a->exact[d] = half_to_float(a->rows[t * full_dim + d]);
        add_squares(sums, a->decoded + t * group->head_dim, a->exact, head_dim);
    }
    return 0;
}

/* The groups of a span whose first token is at `position`, as far as the full cache, from `full_position` on, has them:
 * where a layer looks back on some tokens alone, it need not have all. */
static int compare_span(Attribution *a, const KvSpan *span, size_t position, const KvSpan *full, size_t full_position,
                        HeadSums *sums, Error *error) {
    const KvGroup *group = &span->side[KV_KEYS].group;
    size_t behind = position < full_position ? full_position - position : 0;
    for (size_t i = divide_up(behind, group->n_tokens); i < span->n_tokens / group->n_tokens; i++)
        for (KvSide side = 0; side < KV_SIDES; side++) {
            const KvEncoding *encoding = &span->side[side];
            size_t row = position + i * group->n_tokens - full_position;
            if (compare_group(a, encoding, side, span->records[side] + i * encoding->record_bytes,
                              full->records[side] + row * full_of(a)->layout.row_dim * sizeof(uint16_t),
                              side == KV_KEYS ? &sums->keys : &sums->values, error) < 0)
                return error->code;
        }
    return 0;
}

/* Spans come oldest first, the sink in front, so that positions follow from their lengths: what was dropped lies
 * between the sink and the rest. */
int attribution_end(Attribution *a, Error *error) {
    const KvCache *cache = &a->context->cache;
    if (cache->n_tokens == 0)
        return 0;
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++)
        for (size_t kv_head = 0; kv_head < cache->layout.shape.n_kv_heads; kv_head++) {
            KvSpan spans[KV_MAX_SPANS], full[KV_MAX_SPANS];
            size_t n = kvcache_view(cache, layer, kv_head, cache->n_tokens - 1, spans), position = 0;
            kvcache_view(full_of(a), layer, kv_head, cache->n_tokens - 1, full);
            size_t dropped = kvcache_dropped(cache, layer, cache->n_tokens - 1);
            size_t full_dropped = kvcache_dropped(full_of(a), layer, cache->n_tokens - 1);
            for (size_t s = 0; s < n; position += spans[s++].n_tokens)
                if (spans[s].store >= KV_FIRST_ENCODED &&
                    compare_span(a, &spans[s], position + dropped, &full[0], full_dropped, sums_of(a, layer, kv_head),
                                 error) < 0)
                    return error->code;
        }
    return 0;
}

static double relative(const Squares *sums) {
    return sums->size > 0 ? sqrt(sums->error / sums->size) : 0;
}

HeadError attribution_error(const Attribution *attribution, size_t layer, size_t kv_head) {
    const HeadSums *sums = sums_of(attribution, layer, kv_head);
    return (HeadError){relative(&sums->keys), relative(&sums->values), relative(&sums->output)};
}
