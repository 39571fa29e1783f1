/* In which slots the tokens of a cache are at a given moment: runs of slots for a query, for a range of positions, and
 * the moves of a batch. It follows from the layout and the plan alone; hosts and kernels on a GPU compile it from here.
 *
 *     n = kvcache_layout_view(&layout, layer, n_tokens, position, runs);      // what a query sees
 *     at = kvcache_layout_at(&layout, layer, &runs[0], KV_KEYS, kv_head);     // where its oldest token lies
 */
#ifndef STOWKV_PLACES_H
#define STOWKV_PLACES_H

#include "base/checked.h"
#include "kvcache/layout.h"

/* Tokens in consecutive slots, the same for each KV head. */
typedef struct KvRun {
    size_t store;
    bool in_batch; /* not in the store yet: slots are the batch's */
    bool shifted;  /* the query must be rotated back by the number of tokens dropped */
    size_t slot;   /* of the first token or, in an encoded tier, of the first group */
    size_t n_tokens;
} KvRun;

/* Sink, two runs for each encoded tier (a ring), the first tier; the sink and the first tier may continue in the batch.
 */
#define KV_MAX_RUNS (2 + 2 * (KV_MAX_TIERS - 1) + 2)

/* The position of the oldest token in the first tier, once n_tokens have come: kv_plan_begin() of a whole plan. */
static HOST_DEVICE inline size_t kvcache_layout_tail(const KvCacheLayout *layout, size_t layer, size_t n_tokens) {
    const KvLayerPolicy *policy = kvcache_layer_policy(layout, layer);
    size_t n_sink = kv_plan_sink(policy, n_tokens);
    return n_sink + kv_plan_left(&policy->tiers[0], layout->policy.group, n_tokens - n_sink);
}

/* Of positions [begin, end) of one store, the sink or the first tier, those that are there while the first n_tokens are
 * in their stores, and those in the batch. n_tokens of a run may be 0. */
static HOST_DEVICE inline KvRun kvcache_layout_kept(const KvCacheLayout *layout, size_t layer, size_t store,
                                                    size_t n_tokens, size_t begin, size_t end) {
    size_t first = store == KV_SINK ? 0 : kvcache_layout_tail(layout, layer, n_tokens); /* position in slot 0 */
    size_t kept_end = at_most(end, n_tokens);
    KvRun kept = {store, false, false, begin - first, begin < kept_end ? kept_end - begin : 0};
    return kept;
}

static HOST_DEVICE inline KvRun kvcache_layout_fresh(size_t store, size_t n_tokens, size_t begin, size_t end) {
    size_t fresh_begin = begin > n_tokens ? begin : n_tokens;
    KvRun fresh = {store, true, false, fresh_begin - n_tokens, fresh_begin < end ? end - fresh_begin : 0};
    return fresh;
}

/* Both, without those that are empty. Returns how many runs there are. */
static HOST_DEVICE inline size_t kvcache_layout_rows(const KvCacheLayout *layout, size_t layer, size_t store,
                                                     size_t n_tokens, size_t begin, size_t end, KvRun runs[2]) {
    size_t n = 0;
    KvRun kept = kvcache_layout_kept(layout, layer, store, n_tokens, begin, end);
    KvRun fresh = kvcache_layout_fresh(store, n_tokens, begin, end);
    if (kept.n_tokens > 0)
        runs[n++] = kept;
    if (fresh.n_tokens > 0)
        runs[n++] = fresh;
    return n;
}

/* Groups [begin, end) of a ring: up to two runs. */
static HOST_DEVICE inline size_t kvcache_layout_groups(const KvCacheLayout *layout, size_t layer, size_t store,
                                                       size_t begin, size_t end, KvRun runs[2]) {
    const KvStore *ring = &layout->layers[layer].stores[store];
    size_t n = 0;
    while (begin < end) {
        size_t slot = kv_store_slot(ring, begin), n_groups = at_most(end - begin, ring->array[KV_KEYS].n_slots - slot);
        KvRun run = {store, false, false, slot, n_groups * layout->policy.group};
        runs[n++] = run;
        begin += n_groups;
    }
    return n;
}

/* What a query at `position` sees, oldest tokens first, while the first n_tokens are in their stores and the others in
 * the batch; the first kv_plan_hidden() of them are hidden from it. Returns how many runs there are. */
static HOST_DEVICE inline size_t kvcache_layout_view(const KvCacheLayout *layout, size_t layer, size_t n_tokens,
                                                     size_t position, KvRun runs[KV_MAX_RUNS]) {
    KvPlan plan = kvcache_layer_plan(layout, layer, position + 1);
    size_t group = layout->policy.group;
    size_t n = kvcache_layout_rows(layout, layer, KV_SINK, n_tokens, 0, plan.n_sink, runs);
    for (size_t i = 0; i < n; i++)
        runs[i].shifted = kv_plan_shift(kvcache_layer_policy(layout, layer), &plan) > 0;
    for (size_t tier = plan.n_tiers; tier-- > 1;)
        n += kvcache_layout_groups(layout, layer, KV_TIER(tier), plan.entered[tier + 1] / group,
                                   plan.entered[tier] / group, runs + n);
    return n + kvcache_layout_rows(layout, layer, KV_TIER(0), n_tokens, kv_plan_begin(&plan, 0), kv_plan_end(&plan, 0),
                                   runs + n);
}

/* The offset in bytes of a run's first slot. */
static HOST_DEVICE inline size_t kvcache_layout_at(const KvCacheLayout *layout, size_t layer, const KvRun *run,
                                                   KvSide side, size_t kv_head) {
    const KvArray *array = run->in_batch ? &layout->batch[side] : &layout->layers[layer].stores[run->store].array[side];
    return kv_array_at(array, kv_head, run->slot);
}

/* How a batch that is through a layer goes into its sink and first tier. */
typedef struct KvMove {
    size_t in_sink;   /* tokens that are in the sink */
    size_t to_sink;   /* the first tokens of the batch go behind those */
    size_t n_leaving; /* of the first tier: the oldest, which are in the second by now, or dropped */
    size_t n_staying; /* the others, which move to its beginning */
    size_t to_tail;   /* the batch's tokens from this on go behind those; between, they have left the tier already */
} KvMove;

/* A batch longer than the window passes through the first tier: some of its own tokens have left it already. */
static HOST_DEVICE inline KvMove kvcache_layout_move(const KvCacheLayout *layout, size_t layer, size_t n_tokens,
                                                     size_t n_new) {
    const KvLayerPolicy *policy = kvcache_layer_policy(layout, layer);
    size_t old_begin = kvcache_layout_tail(layout, layer, n_tokens), held = n_tokens - old_begin;
    size_t begin = kvcache_layout_tail(layout, layer, n_tokens + n_new);
    KvMove move;
    move.in_sink = kv_plan_sink(policy, n_tokens);
    move.to_sink = kv_plan_sink(policy, n_tokens + n_new) - move.in_sink;
    move.n_leaving = at_most(begin - old_begin, held);
    move.n_staying = held - move.n_leaving;
    move.to_tail = begin > n_tokens + move.to_sink ? begin - n_tokens : move.to_sink;
    return move;
}

#endif
