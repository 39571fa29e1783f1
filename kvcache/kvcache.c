/* Storage and movement of tokens between tiers; see kvcache.h. Where a token is, plan.c alone decides. */
#include "kvcache/kvcache.h"

#include "base/checked.h"
#include "base/half.h"
#include "base/machine/pages.h"
#include "kvcache/codec/weave.h"

#include <stdlib.h>

#define ALIGNMENT 64

/* Cuts memory into arrays; with base NULL it only measures. */
typedef struct Arena {
    uint8_t *base;
    size_t used;
    bool overflow;
} Arena;

static void *carve(Arena *arena, size_t count, size_t size) {
    size_t bytes, start = arena->used;
    arena->overflow = arena->overflow || !checked_mul(count, size, &bytes) ||
                      !checked_add(arena->used, bytes, &arena->used) ||
                      !checked_align(arena->used, ALIGNMENT, &arena->used);
    return arena->base == NULL || arena->overflow ? NULL : arena->base + start;
}

static size_t divide_up(size_t a, size_t b) {
    return a / b + (a % b != 0);
}

/* Groups that a tier must hold at once: its capacity, and what a batch may add before the oldest are let go. */
static size_t tier_slots(const KvCache *cache, const KvLayerPolicy *policy, size_t tier) {
    size_t group = cache->policy.group, capacity = policy->tiers[tier].capacity;
    size_t ever = kv_plan(policy, group, cache->shape.n_ctx).entered[tier] / group;
    if (capacity == KV_UNLIMITED)
        return ever;
    size_t slots = divide_up(capacity, group) + divide_up(cache->shape.n_batch, group);
    return cache->streams || slots < ever ? slots : ever;
}

static size_t layer_sink(const KvCache *cache, const KvLayerPolicy *policy) {
    return policy->sink < cache->shape.n_ctx ? policy->sink : cache->shape.n_ctx;
}

/* Tier 0 holds less than a group more than its capacity; without a bound, all tokens behind the sink. */
static size_t tail_slots(const KvCache *cache, const KvLayerPolicy *policy) {
    size_t behind_sink = cache->shape.n_ctx - layer_sink(cache, policy), capacity = policy->tiers[0].capacity;
    if (capacity > behind_sink)
        return behind_sink;
    size_t slots = capacity + cache->policy.group - 1;
    return cache->streams || slots < behind_sink ? slots : behind_sink;
}

static KvEncoding encoding_of(const KvCache *cache, KvSide side, KvCodecId id) {
    size_t group = cache->policy.group, head_dim = cache->shape.head_dim;
    KvEncoding encoding = {kv_codec(id), {group, head_dim, group, false}, 0};
    encoding.group.rotated = kv_policy_rotates(&cache->policy, side, id, head_dim);
    encoding.record_bytes = kv_codec_bytes(encoding.codec, side, &encoding.group);
    return encoding;
}

static void size_tier(const KvCache *cache, KvTierStore *store, const KvTier *tier, size_t n_slots) {
    store->side[KV_KEYS] = encoding_of(cache, KV_KEYS, tier->k);
    store->side[KV_VALUES] = encoding_of(cache, KV_VALUES, tier->v);
    store->n_slots = n_slots;
}

static void size_layer(const KvCache *cache, size_t index, KvLayer *layer) {
    const KvLayerPolicy *policy = kv_policy_of_layer(&cache->policy, index);
    layer->policy = policy;
    layer->sink_slots = layer_sink(cache, policy);
    layer->tail_slots = tail_slots(cache, policy);
    for (size_t t = 1; t < policy->n_tiers; t++)
        size_tier(cache, &layer->tiers[t], &policy->tiers[t], tier_slots(cache, policy, t));
}

static void lay_out_layer(const KvCache *cache, KvLayer *layer, Arena *arena) {
    const KvShape *shape = &cache->shape;
    size_t row = shape->n_kv_heads * shape->head_dim * sizeof(uint16_t), start = arena->used;
    for (KvSide side = 0; side < KV_SIDES; side++)
        layer->sink[side] = carve(arena, layer->sink_slots, row);
    layer->row_bytes[0] = arena->used - start;
    start = arena->used;
    for (KvSide side = 0; side < KV_SIDES; side++)
        layer->tail[side] = carve(arena, layer->tail_slots, row);
    layer->row_bytes[1] = arena->used - start;
    for (size_t t = 1; t < layer->policy->n_tiers; t++) {
        KvTierStore *store = &layer->tiers[t];
        start = arena->used;
        for (KvSide side = 0; side < KV_SIDES; side++)
            store->records[side] = carve(arena, shape->n_kv_heads * store->n_slots, store->side[side].record_bytes);
        layer->row_bytes[t + 1] = arena->used - start;
    }
}

/* The arrays that a batch passes through, shared by all layers. */
static void lay_out_working(KvCache *cache, Arena *arena) {
    const KvShape *shape = &cache->shape;
    size_t row = shape->n_kv_heads * shape->head_dim;
    for (KvSide side = 0; side < KV_SIDES; side++)
        cache->fresh[side] = carve(arena, shape->n_batch * row, sizeof(uint16_t));
    cache->scratch = carve(arena, 2 * cache->policy.group * row, sizeof(float));
}

/* Points all arrays into `memory`, or only measures where it is NULL. */
static Arena lay_out(KvCache *cache, void *memory) {
    Arena arena = {.base = memory};
    for (size_t i = 0; i < cache->shape.n_layers; i++)
        lay_out_layer(cache, &cache->layers[i], &arena);
    cache->kept_bytes = arena.used;
    lay_out_working(cache, &arena);
    cache->working_bytes = arena.used - cache->kept_bytes;
    return arena;
}

int kvcache_open(KvCache *cache, const KvShape *shape, const KvPolicy *policy, Error *error) {
    *cache = (KvCache){.shape = *shape, .policy = *policy, .streams = kv_policy_streams(policy, shape->n_ctx)};
    cache->layers = calloc(shape->n_layers, sizeof *cache->layers);
    if (cache->layers == NULL)
        return error_memory(error, "the cache's layers", shape->n_layers * sizeof *cache->layers);
    for (size_t i = 0; i < shape->n_layers; i++)
        size_layer(cache, i, &cache->layers[i]);
    if (!lay_out(cache, NULL).overflow)
        return 0;
    kvcache_close(cache);
    return error_set(error, ERROR_ARGUMENT, "a cache of %zu tokens does not fit into memory; use a smaller --n_ctx",
                     shape->n_ctx);
}

void kvcache_set_memory(KvCache *cache, void *memory) {
    lay_out(cache, memory);
}

/* Of an array of `n_slots` for each KV head, the part of one head from its slot `begin` up to `end`. */
static void touch_slots(void *array, size_t kv_head, size_t n_slots, size_t slot_bytes, size_t begin, size_t end) {
    size_t last = end < n_slots ? end : n_slots;
    if (begin < last)
        pages_touch((uint8_t *)array + (kv_head * n_slots + begin) * slot_bytes, (last - begin) * slot_bytes);
}

/* Arrays fill from their first slot on, and those that tokens leave again are used again from there. */
static void touch_layer(KvCache *cache, KvLayer *layer, size_t kv_head, size_t begin, size_t end) {
    size_t group = cache->policy.group, row = cache->shape.head_dim * sizeof(uint16_t);
    KvPlan before = kv_plan(layer->policy, group, begin), after = kv_plan(layer->policy, group, end);
    for (KvSide side = 0; side < KV_SIDES; side++) {
        touch_slots(layer->sink[side], kv_head, layer->sink_slots, row, before.n_sink, after.n_sink);
        touch_slots(layer->tail[side], kv_head, layer->tail_slots, row, before.entered[0], after.entered[0]);
        for (size_t t = 1; t < after.n_tiers; t++)
            touch_slots(layer->tiers[t].records[side], kv_head, layer->tiers[t].n_slots,
                        layer->tiers[t].side[side].record_bytes, before.entered[t] / group, after.entered[t] / group);
    }
}

void kvcache_touch(KvCache *cache, size_t kv_head, size_t begin, size_t end) {
    for (size_t i = 0; i < cache->shape.n_layers; i++)
        touch_layer(cache, &cache->layers[i], kv_head, begin, end);
}

void kvcache_close(KvCache *cache) {
    free(cache->layers);
    *cache = (KvCache){0};
}

void kvcache_clear(KvCache *cache) {
    cache->n_tokens = 0;
    for (size_t i = 0; i < cache->shape.n_layers; i++)
        memset(&cache->layers[i].counters, 0, sizeof cache->layers[i].counters);
}

bool kvcache_has_room(const KvCache *cache, size_t n_tokens) {
    return cache->streams || n_tokens <= cache->shape.n_ctx - cache->n_tokens;
}

static KvPlan plan_of(const KvCache *cache, size_t layer, size_t n_tokens) {
    return kv_plan(cache->layers[layer].policy, cache->policy.group, n_tokens);
}

/* Where FP16 rows of a position are: the sink, the tail, or the batch under way. */
static const uint16_t *fp16_row(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSide side) {
    const KvLayer *l = &cache->layers[layer];
    size_t dim = cache->shape.head_dim, first = cache->n_tokens;
    if (position >= first)
        return cache->fresh[side] + (kv_head * cache->shape.n_batch + position - first) * dim;
    if (position < l->policy->sink)
        return l->sink[side] + (kv_head * l->sink_slots + position) * dim;
    KvPlan plan = plan_of(cache, layer, first);
    return l->tail[side] + (kv_head * l->tail_slots + position - kv_plan_begin(&plan, 0)) * dim;
}

static void encode_f16(const float *values, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t half = half_from_float(values[i]), magnitude = half & 0x7fff;
        bool is_finite = (float_to_bits(values[i]) & 0x7fffffff) < 0x7f800000;
        out[i] = (uint16_t)(half - (is_finite & (magnitude == 0x7c00))); /* one below infinity: the largest value */
    }
}

static uint8_t *record(const KvTierStore *store, KvSide side, size_t kv_head, size_t group) {
    size_t slot = kv_head * store->n_slots + group % store->n_slots;
    return store->records[side] + slot * store->side[side].record_bytes;
}

/* The values of a group before it enters `tier`, in F32: FP16 from the first tier, else what the tier before decodes.
 */
static void gather_group(const KvCache *cache, size_t layer, size_t kv_head, size_t tier, size_t index, KvSide side,
                         float *out, uint8_t *room) {
    const KvLayer *l = &cache->layers[layer];
    size_t n = cache->policy.group, dim = cache->shape.head_dim;
    if (tier == 1) {
        for (size_t t = 0; t < n; t++) {
            const uint16_t *row = fp16_row(cache, layer, kv_head, l->policy->sink + index * n + t, side);
            for (size_t d = 0; d < dim; d++)
                out[t * dim + d] = half_to_float(row[d]);
        }
        return;
    }
    const KvTierStore *before = &l->tiers[tier - 1];
    const KvEncoding *encoding = &before->side[side];
    kv_decode_kept(kv_codec_id(encoding->codec), side, &encoding->group, record(before, side, kv_head, index), room,
                   out);
    if (encoding->group.rotated)
        kv_rotate(out, n, dim);
}

static void encode_side(KvCache *cache, size_t layer, size_t kv_head, size_t tier, size_t index, KvSide side) {
    const KvTierStore *store = &cache->layers[layer].tiers[tier];
    const KvEncoding *encoding = &store->side[side];
    size_t size = cache->policy.group * cache->shape.head_dim;
    float *values = cache->scratch + kv_head * 2 * size, *scratch = values + size; /* a record fits in either */
    uint8_t *to = record(store, side, kv_head, index);
    gather_group(cache, layer, kv_head, tier, index, side, values, (uint8_t *)scratch);
    kv_codec_encode(encoding->codec, cache->level, side, &encoding->group, values, scratch, to);
    kv_weave(kv_codec_id(encoding->codec), side, &encoding->group, to, (uint8_t *)values);
}

static void encode_group(KvCache *cache, size_t layer, size_t kv_head, size_t tier, size_t index) {
    encode_side(cache, layer, kv_head, tier, index, KV_KEYS);
    encode_side(cache, layer, kv_head, tier, index, KV_VALUES);
    atomic_fetch_add(&cache->layers[layer].counters.tokens_encoded[tier + 1], cache->policy.group);
}

void kvcache_append(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens, const float *keys,
                    const float *values) {
    const KvShape *shape = &cache->shape;
    KvLayer *l = &cache->layers[layer];
    size_t dim = shape->head_dim;
    for (size_t t = 0; t < n_tokens; t++) {
        size_t to = (kv_head * shape->n_batch + t) * dim, from = (t * shape->n_kv_heads + kv_head) * dim;
        encode_f16(keys + from, dim, cache->fresh[KV_KEYS] + to);
        encode_f16(values + from, dim, cache->fresh[KV_VALUES] + to);
    }
    KvPlan before = plan_of(cache, layer, cache->n_tokens), after = plan_of(cache, layer, cache->n_tokens + n_tokens);
    atomic_fetch_add(&l->counters.tokens_encoded[0], after.n_sink - before.n_sink);
    atomic_fetch_add(&l->counters.tokens_encoded[1], after.entered[0] - before.entered[0]);
    for (size_t tier = 1; tier < after.n_tiers; tier++)
        for (size_t entered = before.entered[tier]; entered < after.entered[tier]; entered += cache->policy.group)
            encode_group(cache, layer, kv_head, tier, entered / cache->policy.group);
}

/* Adds positions [begin, end) in FP16: up to two runs, since the newest may still be in the batch. */
static size_t add_fp16_spans(const KvCache *cache, size_t layer, size_t kv_head, size_t begin, size_t end, KvSpan model,
                             KvSpan *spans) {
    size_t n = 0, first = cache->n_tokens;
    const size_t runs[2][2] = {{begin, end < first ? end : first}, {begin > first ? begin : first, end}};
    for (size_t i = 0; i < 2; i++) {
        if (runs[i][0] >= runs[i][1])
            continue;
        spans[n] = model;
        for (KvSide side = 0; side < KV_SIDES; side++)
            spans[n].records[side] = (const uint8_t *)fp16_row(cache, layer, kv_head, runs[i][0], side);
        spans[n++].n_tokens = runs[i][1] - runs[i][0];
    }
    return n;
}

/* Adds groups [begin, end) of a ring: up to two runs. */
static size_t add_encoded_spans(const KvCache *cache, const KvTierStore *store, size_t kv_head, size_t tier,
                                size_t begin, size_t end, KvSpan *spans) {
    size_t n = 0;
    while (begin < end) {
        size_t until_wrap = store->n_slots - begin % store->n_slots, run = end - begin;
        run = run < until_wrap ? run : until_wrap;
        spans[n] = (KvSpan){.n_tokens = run * cache->policy.group, .row = tier + 1};
        for (KvSide side = 0; side < KV_SIDES; side++) {
            spans[n].side[side] = store->side[side];
            spans[n].records[side] = record(store, side, kv_head, begin);
        }
        n++;
        begin += run;
    }
    return n;
}

size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]) {
    const KvLayer *l = &cache->layers[layer];
    KvPlan plan = plan_of(cache, layer, position + 1);
    KvEncoding f16 = encoding_of(cache, KV_KEYS, KV_F16); /* that of values is the same */
    KvSpan fp16 = {.side = {f16, f16}, .shifted = kv_plan_dropped(&plan) > 0};
    size_t n = add_fp16_spans(cache, layer, kv_head, 0, plan.n_sink, fp16, spans);
    for (size_t tier = plan.n_tiers; tier-- > 1;)
        n += add_encoded_spans(cache, &l->tiers[tier], kv_head, tier, plan.entered[tier + 1] / cache->policy.group,
                               plan.entered[tier] / cache->policy.group, spans + n);
    fp16.shifted = false;
    fp16.row = 1;
    return n + add_fp16_spans(cache, layer, kv_head, kv_plan_begin(&plan, 0), kv_plan_end(&plan, 0), fp16, spans + n);
}

size_t kvcache_dropped(const KvCache *cache, size_t layer, size_t position) {
    KvPlan plan = plan_of(cache, layer, position + 1);
    return kv_plan_dropped(&plan);
}

/* Copies what stays of the batch behind what stays of `rows`, whose first `n_leaving` of `n_held` tokens go. */
static void commit_rows(uint16_t *rows, size_t n_held, size_t n_leaving, const uint16_t *fresh, size_t n_fresh,
                        size_t dim) {
    size_t n_staying = n_held - n_leaving;
    if (n_leaving > 0)
        memmove(rows, rows + n_leaving * dim, n_staying * dim * sizeof *rows);
    memcpy(rows + n_staying * dim, fresh, n_fresh * dim * sizeof *rows);
}

void kvcache_commit(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens) {
    KvLayer *l = &cache->layers[layer];
    size_t dim = cache->shape.head_dim, first = cache->n_tokens;
    KvPlan before = plan_of(cache, layer, first), after = plan_of(cache, layer, first + n_tokens);
    size_t to_sink = after.n_sink - before.n_sink;

    /* A batch longer than the window passes through the tail: some of its own tokens are encoded already. */
    size_t held = kv_plan_held(&before, 0), begin = kv_plan_begin(&after, 0), old_begin = kv_plan_begin(&before, 0);
    size_t leaving = begin - old_begin < held ? begin - old_begin : held;
    size_t from = begin > first + to_sink ? begin - first : to_sink;
    for (KvSide side = 0; side < KV_SIDES; side++) {
        const uint16_t *fresh = cache->fresh[side] + kv_head * cache->shape.n_batch * dim;
        uint16_t *sink = l->sink[side] + kv_head * l->sink_slots * dim;
        uint16_t *tail = l->tail[side] + kv_head * l->tail_slots * dim;
        commit_rows(sink, before.n_sink, 0, fresh, to_sink, dim);
        commit_rows(tail, held, leaving, fresh + from * dim, n_tokens - from, dim);
    }
}

void kvcache_advance(KvCache *cache, size_t n_tokens) {
    cache->n_tokens += n_tokens;
}

/* A span of FP16 rows need not be whole groups, and a record holds exactly its rows. */
static size_t span_bytes(const KvSpan *span) {
    const KvEncoding *keys = &span->side[KV_KEYS], *values = &span->side[KV_VALUES];
    return span->n_tokens * (keys->record_bytes + values->record_bytes) / keys->group.n_tokens;
}

void kvcache_count_read(KvCache *cache, size_t layer, const KvSpan *spans, size_t n_spans) {
    for (size_t s = 0; s < n_spans; s++)
        atomic_fetch_add_explicit(&cache->layers[layer].counters.bytes_read[spans[s].row], span_bytes(&spans[s]),
                                  memory_order_relaxed);
}
