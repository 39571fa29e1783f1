/* See layout.h. */
#include "kvcache/layout.h"

#include "base/checked.h"

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

/* Slots of single tokens have no record form: they are FP16, (head_dim). */
static KvEncoding encoding_of(const KvCacheLayout *layout, KvSide side, KvCodecId id, size_t slot_tokens) {
    size_t group = layout->policy.group, head_dim = layout->shape.head_dim;
    KvEncoding encoding = {.codec = kv_codec(id), .group = {group, head_dim, group, false}};
    encoding.group.rotated = kv_policy_rotates(&layout->policy, side, id, head_dim);
    encoding.record_bytes = slot_tokens == 1 ? kv_codec_bytes(encoding.codec, side, &encoding.group)
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

static size_t rule_of_layer(const KvPolicy *policy, size_t layer) {
    const KvLayerPolicy *own = kv_policy_of_layer(policy, layer);
    size_t rule = 0;
    while (&policy->rules[rule].policy != own)
        rule++;
    return rule;
}

static Arena lay_out(KvCacheLayout *layout) {
    const KvShape *shape = &layout->shape;
    Arena arena = {0};
    for (size_t i = 0; i < shape->n_layers; i++) {
        layout->layers[i].rule = rule_of_layer(&layout->policy, i);
        lay_out_layer(layout, kvcache_layer_policy(layout, i), &arena, &layout->layers[i]);
    }
    layout->kept_bytes = arena.used;
    for (KvSide side = 0; side < KV_SIDES; side++)
        layout->batch[side] = carve(&arena, shape, shape->n_batch, shape->head_dim * sizeof(uint16_t));
    layout->scratch = carve(&arena, shape, 2, layout->policy.group * shape->head_dim * sizeof(float));
    layout->working_bytes = arena.used - layout->kept_bytes;
    return arena;
}

int kvcache_layout_open(KvCacheLayout *layout, const KvShape *shape, const KvPolicy *policy, const KvRecordForm *form,
                        Error *error) {
    *layout = (KvCacheLayout){
        .shape = *shape, .policy = *policy, .form = form, .streams = kv_policy_streams(policy, shape->n_ctx)};
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

/* ---- Places */

size_t kvcache_layout_rows(const KvCacheLayout *layout, size_t layer, size_t store, size_t n_tokens, size_t begin,
                           size_t end, KvRun runs[2]) {
    KvPlan plan = kvcache_layer_plan(layout, layer, n_tokens);
    size_t n = 0, first = store == KV_SINK ? 0 : kv_plan_begin(&plan, 0); /* position in slot 0 */
    size_t kept_end = at_most(end, n_tokens), batch_begin = begin > n_tokens ? begin : n_tokens;
    if (begin < kept_end)
        runs[n++] = (KvRun){.store = store, .slot = begin - first, .n_tokens = kept_end - begin};
    if (batch_begin < end)
        runs[n++] =
            (KvRun){.store = store, .in_batch = true, .slot = batch_begin - n_tokens, .n_tokens = end - batch_begin};
    return n;
}

/* Groups [begin, end) of a ring: up to two runs. */
static size_t ring_runs(const KvCacheLayout *layout, size_t layer, size_t store, size_t begin, size_t end,
                        KvRun runs[2]) {
    const KvStore *ring = &layout->layers[layer].stores[store];
    size_t n = 0;
    while (begin < end) {
        size_t slot = kv_store_slot(ring, begin), n_groups = at_most(end - begin, ring->array[KV_KEYS].n_slots - slot);
        runs[n++] = (KvRun){.store = store, .slot = slot, .n_tokens = n_groups * layout->policy.group};
        begin += n_groups;
    }
    return n;
}

size_t kvcache_layout_view(const KvCacheLayout *layout, size_t layer, size_t n_tokens, size_t position,
                           KvRun runs[KV_MAX_RUNS]) {
    KvPlan plan = kvcache_layer_plan(layout, layer, position + 1);
    size_t group = layout->policy.group;
    size_t n = kvcache_layout_rows(layout, layer, KV_SINK, n_tokens, 0, plan.n_sink, runs);
    for (size_t i = 0; i < n; i++)
        runs[i].shifted = kv_plan_dropped(&plan) > 0;
    for (size_t tier = plan.n_tiers; tier-- > 1;)
        n += ring_runs(layout, layer, KV_TIER(tier), plan.entered[tier + 1] / group, plan.entered[tier] / group,
                       runs + n);
    return n + kvcache_layout_rows(layout, layer, KV_TIER(0), n_tokens, kv_plan_begin(&plan, 0), kv_plan_end(&plan, 0),
                                   runs + n);
}

size_t kvcache_layout_at(const KvCacheLayout *layout, size_t layer, const KvRun *run, KvSide side, size_t kv_head) {
    const KvArray *array = run->in_batch ? &layout->batch[side] : &layout->layers[layer].stores[run->store].array[side];
    return kv_array_at(array, kv_head, run->slot);
}

/* A batch longer than the window passes through the first tier: some of its own tokens have left it already. */
KvMove kvcache_layout_move(const KvCacheLayout *layout, size_t layer, size_t n_tokens, size_t n_new) {
    KvPlan before = kvcache_layer_plan(layout, layer, n_tokens);
    KvPlan after = kvcache_layer_plan(layout, layer, n_tokens + n_new);
    size_t held = kv_plan_held(&before, 0), old_begin = kv_plan_begin(&before, 0), begin = kv_plan_begin(&after, 0);
    KvMove move = {.in_sink = before.n_sink, .to_sink = after.n_sink - before.n_sink};
    move.n_leaving = at_most(begin - old_begin, held);
    move.n_staying = held - move.n_leaving;
    move.to_tail = begin > n_tokens + move.to_sink ? begin - n_tokens : move.to_sink;
    return move;
}
