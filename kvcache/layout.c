/* See layout.h. */
#include "kvcache/layout.h"

#include "base/checked.h"
#include "kvcache/codec/query_moments.h"

#include <stdlib.h>

/* Gives out offsets, one array behind the other. */
typedef struct Arena {
    size_t used;
    bool overflow;
} Arena;

static KvArray carve(Arena *arena, const KvShape *shape, size_t n_slots, size_t slot_bytes) {
    KvArray array = {arena->used, n_slots, slot_bytes};
    size_t bytes;
    arena->overflow = arena->overflow || !checked_mul(shape->n_kv_heads * n_slots, slot_bytes, &bytes) ||
                      !checked_add(arena->used, bytes, &arena->used) ||
                      !checked_align(arena->used, KV_ALIGNMENT, &arena->used);
    return array;
}

/* ---- Sizes */

/* Groups that a tier must hold at once: its capacity, and what a batch may add before the oldest are let go. */
static size_t ring_slots(const KvCacheLayout *layout, const KvLayerPolicy *policy, size_t tier) {
    size_t group = layout->policy.group, capacity = policy->tiers[tier].capacity;
    size_t ever = kv_plan(policy, group, layout->shape.n_ctx).entered[tier] / group;
    if (capacity == KV_UNLIMITED)
        return ever;
    size_t slots = divide_up(capacity, group) + divide_up(layout->shape.n_batch, group);
    return layout->streams ? slots : at_most(slots, ever);
}

static size_t sink_slots(const KvCacheLayout *layout, const KvLayerPolicy *policy) {
    return at_most(policy->sink, layout->shape.n_ctx);
}

/* The first tier holds less than a group more than its capacity; without a bound, all tokens behind the sink. */
static size_t tail_slots(const KvCacheLayout *layout, const KvLayerPolicy *policy) {
    size_t behind_sink = layout->shape.n_ctx - sink_slots(layout, policy), capacity = policy->tiers[0].capacity;
    if (capacity > behind_sink)
        return behind_sink;
    size_t slots = capacity + layout->policy.group - 1;
    return layout->streams ? slots : at_most(slots, behind_sink);
}

/* Slots of single tokens have no record form: they are FP16, (row_dim). */
static KvEncoding encoding_of(const KvCacheLayout *layout, KvSide side, KvCodecId id, size_t slot_tokens) {
    size_t group = layout->policy.group, row_dim = layout->row_dim;
    KvEncoding encoding = {.codec = id, .group = {group, row_dim, group, false}};
    encoding.group.rotated = kv_policy_rotates(&layout->policy, side, id, row_dim);
    encoding.record_bytes = slot_tokens == 1 ? kv_codec_bytes(kv_codec(id), side, &encoding.group)
                                             : layout->form->stored_bytes(id, side, &encoding.group);
    return encoding;
}

/* ---- Arrays */

static KvStore lay_out_store(const KvCacheLayout *layout, Arena *arena, const KvCodecId codecs[KV_SIDES],
                             size_t slot_tokens, size_t n_slots) {
    KvStore store = {.slot_tokens = slot_tokens};
    size_t start = arena->used;
    for (KvSide side = 0; side < KV_SIDES; side++) {
        store.side[side] = encoding_of(layout, side, codecs[side], slot_tokens);
        size_t slot_bytes = store.side[side].record_bytes / (layout->policy.group / slot_tokens);
        store.array[side] = carve(arena, &layout->shape, n_slots, slot_bytes);
    }
    store.bytes = arena->used - start;
    return store;
}

static void lay_out_layer(const KvCacheLayout *layout, const KvLayerPolicy *policy, Arena *arena, KvLayerLayout *out) {
    static const KvCodecId FP16[KV_SIDES] = {KV_F16, KV_F16};
    out->n_stores = KV_TIER(policy->n_tiers);
    out->stores[KV_SINK] = lay_out_store(layout, arena, FP16, 1, sink_slots(layout, policy));
    out->stores[KV_TIER(0)] = lay_out_store(layout, arena, FP16, 1, tail_slots(layout, policy));
    for (size_t t = 1; t < policy->n_tiers; t++) {
        const KvCodecId codecs[KV_SIDES] = {policy->tiers[t].k, policy->tiers[t].v};
        out->stores[KV_TIER(t)] =
            lay_out_store(layout, arena, codecs, layout->policy.group, ring_slots(layout, policy, t));
    }
}

static bool any_tier_rounds_aware(const KvCacheLayout *layout, const KvLayerPolicy *policy) {
    for (size_t t = 1; t < policy->n_tiers; t++)
        if (kvcache_rounds_aware(layout, policy->tiers[t].k))
            return true;
    return false;
}

static void lay_out_moments(const KvCacheLayout *layout, const KvLayerPolicy *policy, Arena *arena,
                            KvLayerLayout *out) {
    const KvShape *shape = &layout->shape;
    size_t start = arena->used, n_slots = any_tier_rounds_aware(layout, policy) ? 1 : 0;
    out->moments = carve(arena, shape, n_slots, kv_moments_floats(shape->head_dim) * sizeof(float));
    out->waiting = carve(arena, shape, n_slots, KV_MOMENTS_WAITING * kv_moments_row(shape->head_dim) * sizeof(float));
    out->moments_bytes = arena->used - start;
}

static size_t rule_of_layer(const KvPolicy *policy, size_t layer) {
    const KvLayerPolicy *own = kv_policy_of_layer(policy, layer);
    size_t rule = 0;
    while (&policy->rules[rule].policy != own)
        rule++;
    return rule;
}

static Arena lay_out(KvCacheLayout *layout) {
    const KvShape *shape = &layout->shape;
    const KvGroup group = {.n_tokens = layout->policy.group, .head_dim = layout->row_dim};
    Arena arena = {0};
    bool any_aware = false;
    for (size_t i = 0; i < layout->policy.n_rules; i++)
        layout->within[i] = kv_layer_within(&layout->policy.rules[i].policy, shape->lookback);
    for (size_t i = 0; i < shape->n_layers; i++) {
        layout->layers[i].rule = rule_of_layer(&layout->policy, i);
        layout->layers[i].local = shape->lookback > 0 && layer_set_has(&shape->local, i);
        lay_out_layer(layout, kvcache_layer_policy(layout, i), &arena, &layout->layers[i]);
        lay_out_moments(layout, kvcache_layer_policy(layout, i), &arena, &layout->layers[i]);
        any_aware = any_aware || layout->layers[i].moments.n_slots > 0;
    }
    layout->kept_bytes = arena.used;
    for (KvSide side = 0; side < KV_SIDES; side++)
        layout->batch[side] = carve(&arena, shape, shape->n_batch, layout->row_dim * sizeof(uint16_t));
    layout->scratch = carve(&arena, shape, 2, layout->policy.group * layout->row_dim * sizeof(float));
    layout->aware = carve(&arena, shape, any_aware ? 1 : 0,
                          (layout->row_dim * layout->row_dim + kv_aware_floats(&group)) * sizeof(float));
    layout->working_bytes = arena.used - layout->kept_bytes;
    return arena;
}

int kvcache_layout_open(KvCacheLayout *layout, const KvShape *shape, const KvPolicy *policy, const KvRecordForm *form,
                        Error *error) {
    if (policy->rounding == KV_ROUND_AWARE && !form->takes_queries)
        return error_set(error, ERROR_UNSUPPORTED,
                         "this device rounds keys to nearest; use --kv_rounding nearest, or --device cpu");
    *layout = (KvCacheLayout){.shape = *shape,
                              .policy = *policy,
                              .row_dim = kv_policy_row_dim(policy, shape->head_dim),
                              .form = form,
                              .streams = kv_policy_streams(policy, shape->n_ctx)};
    layout->layers = calloc(shape->n_layers, sizeof *layout->layers);
    if (layout->layers == NULL)
        return error_memory(error, "the cache's layers", shape->n_layers * sizeof *layout->layers);
    if (!lay_out(layout).overflow)
        return 0;
    kvcache_layout_close(layout);
    return error_set(error, ERROR_ARGUMENT, "a cache of %zu tokens does not fit into memory; use a smaller --n_ctx",
                     shape->n_ctx);
}

void kvcache_layout_close(KvCacheLayout *layout) {
    free(layout->layers);
    *layout = (KvCacheLayout){0};
}
