/* The layout on its own, for many random shapes, policies and sizes of records: arrays lie side by side, all sizes are
 * those of a count made here, and tokens that are moved as it says are found again where it says. */
#include "kvcache/ledger.h"
#include "kvcache/places.h"
#include "kvcache/policy_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_CASES = 300, MAX_CTX = 400, MAX_BATCH = 150, MAX_HEADS = 3, MAX_LAYERS = 3, STREAMED = 3 * MAX_CTX };

static size_t random_below(size_t n) {
    static uint64_t state = 1;
    state = state * 6364136223846793005 + 1442695040888963407;
    return (size_t)(state >> 33) % n;
}

/* ---- Cases */

/* Records that are longer than the codec's by something odd, now and then. */
static size_t padding;

static size_t padded_bytes(KvCodecId id, KvSide side, const KvGroup *group) {
    return kv_codec_bytes(kv_codec(id), side, group) + padding;
}

static const KvRecordForm PADDED = {.stored_bytes = padded_bytes};

static KvLayerPolicy random_rule(size_t n_ctx) {
    static const size_t sizes[] = {0, 1, 31, 32, 33, 63, 64, 65, 100, 128};
    KvLayerPolicy rule = {.n_tiers = 1 + random_below(random_below(4) == 0 ? KV_MAX_TIERS : 4)};
    rule.sink = random_below(3) == 0 ? 0 : random_below(random_below(8) == 0 ? n_ctx + 1 : 20);
    for (size_t t = 0; t < rule.n_tiers; t++) {
        rule.tiers[t] = (KvTier){(KvCodecId)random_below(KV_CODEC_COUNT), (KvCodecId)random_below(KV_CODEC_COUNT),
                                 sizes[random_below(sizeof sizes / sizeof *sizes)]};
        if (rule.tiers[t].capacity > n_ctx)
            rule.tiers[t].capacity = n_ctx;
    }
    rule.tiers[0].k = rule.tiers[0].v = KV_F16;
    if (random_below(2) == 0)
        rule.tiers[rule.n_tiers - 1].capacity = KV_UNLIMITED;
    return rule;
}

/* A rule for the first layer, and one for the others. */
static void random_case(KvShape *shape, KvPolicy *policy) {
    static const size_t dims[] = {64, 128, 192, 20, 80, 100};
    *policy = kv_policy_full();
    do {
        *shape = (KvShape){1 + random_below(MAX_LAYERS),
                           1 + random_below(MAX_HEADS),
                           dims[random_below(6)],
                           1 + random_below(MAX_CTX),
                           1 + random_below(MAX_BATCH),
                           {{0}},
                           0};
        if (random_below(2) == 0)
            shape->lookback = 1 + random_below(shape->n_ctx);
        for (size_t i = 0; i < shape->n_layers; i++)
            if (random_below(2) == 0)
                layer_set_add(&shape->local, i);
        policy->group = random_below(2) == 0 ? 32 : 64;
        policy->n_rules = 2;
        policy->rules[0] = (KvRule){0, 0, random_rule(shape->n_ctx)};
        policy->rules[1] = (KvRule){0, SIZE_MAX, random_rule(shape->n_ctx)};
        padding = random_below(2) == 0 ? 0 : random_below(99);
    } while (kv_policy_check(policy, shape->n_layers, shape->head_dim, shape->n_ctx, NULL) < 0);
}

static const KvLayerPolicy *rule_of(const KvCacheLayout *layout, size_t layer) {
    static KvLayerPolicy within;
    const KvLayerPolicy *rule = &layout->policy.rules[layer > 0].policy;
    within = kv_layer_within(rule, layout->shape.lookback);
    return layout->shape.lookback > 0 && layer_set_has(&layout->shape.local, layer) ? &within : rule;
}

/* ---- Arrays */

typedef struct Range {
    size_t begin, end;
} Range;

enum { MAX_RANGES = MAX_LAYERS * KV_MAX_STORES * KV_SIDES + KV_SIDES + 1 };

static Range range_of(const KvArray *array, size_t n_kv_heads) {
    assert_int_equal(array->offset % 64, 0);
    return (Range){array->offset, array->offset + n_kv_heads * array->n_slots * array->slot_bytes};
}

/* Between them no array overlaps, and none but what aligns is left out. */
static void check_ranges(const Range *ranges, size_t n, size_t begin, size_t end) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(begin <= ranges[i].begin && ranges[i].begin <= ranges[i].end && ranges[i].end <= end);
        bytes += (ranges[i].end - ranges[i].begin + 63) / 64 * 64;
        for (size_t j = 0; j < i; j++)
            assert_true(ranges[i].end <= ranges[j].begin || ranges[j].end <= ranges[i].begin ||
                        ranges[i].begin == ranges[i].end || ranges[j].begin == ranges[j].end);
    }
    assert_int_equal(bytes, end - begin);
}

static void check_arrays(const KvCacheLayout *layout) {
    Range ranges[MAX_RANGES];
    const KvShape *shape = &layout->shape;
    size_t n = 0;
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        for (size_t s = 0; s < layout->layers[layer].n_stores; s++)
            for (KvSide side = 0; side < KV_SIDES; side++)
                ranges[n++] = range_of(&layout->layers[layer].stores[s].array[side], shape->n_kv_heads);
    check_ranges(ranges, n, 0, layout->kept_bytes);
    for (size_t i = 0; i < KV_SIDES; i++)
        ranges[i] = range_of(&layout->batch[i], shape->n_kv_heads);
    ranges[KV_SIDES] = range_of(&layout->scratch, shape->n_kv_heads);
    check_ranges(ranges, KV_SIDES + 1, layout->kept_bytes, layout->kept_bytes + layout->working_bytes);
}

/* ---- Sizes */

/* The most slots of a store that are in use at once: tokens or groups that the queries of a batch see, from the oldest
 * query's first to the youngest query's last. What the sink and the first tier get of a batch waits in the batch. */
static size_t count_slots(const KvCacheLayout *layout, size_t layer, size_t store) {
    const KvLayerPolicy *rule = rule_of(layout, layer);
    size_t group = layout->policy.group, n_batch = layout->shape.n_batch, most = 0;
    size_t last = layout->streams ? STREAMED : layout->shape.n_ctx;
    for (size_t first = 0; first < last; first++) {
        size_t end = first + n_batch < last ? first + n_batch : last, n;
        KvPlan oldest = kv_plan(rule, group, first + 1), youngest = kv_plan(rule, group, end);
        if (store < KV_FIRST_ENCODED)
            n = store == KV_SINK ? oldest.n_sink : kv_plan_held(&oldest, 0);
        else
            n = (youngest.entered[store - 1] - oldest.entered[store]) / group;
        most = n > most ? n : most;
    }
    return most;
}

static void check_store(const KvCacheLayout *layout, size_t layer, size_t s) {
    const KvStore *store = &layout->layers[layer].stores[s];
    const KvLayerPolicy *rule = rule_of(layout, layer);
    size_t group = layout->policy.group, row_dim = layout->row_dim, needed = count_slots(layout, layer, s);
    for (KvSide side = 0; side < KV_SIDES; side++) {
        const KvArray *array = &store->array[side];
        KvCodecId id = s == KV_SINK ? KV_F16 : side == KV_KEYS ? rule->tiers[s - 1].k : rule->tiers[s - 1].v;
        assert_int_equal(store->side[side].codec, id);
        assert_int_equal(store->side[side].group.rotated, kv_policy_rotates(&layout->policy, side, id, row_dim));
        assert_int_equal(store->side[side].group.head_dim, row_dim);
        if (s < KV_FIRST_ENCODED) {
            assert_int_equal(array->slot_bytes, row_dim * 2);
            assert_int_equal(array->n_slots, needed);
        } else { /* a capacity that is no multiple of a group, or so a batch, may waste a slot */
            assert_int_equal(array->slot_bytes, padded_bytes(id, side, &store->side[side].group));
            assert_in_range(array->n_slots, needed, needed + 1);
        }
    }
    assert_int_equal(store->slot_tokens, s < KV_FIRST_ENCODED ? 1 : group);
}

static void check_sizes(const KvCacheLayout *layout) {
    const KvShape *shape = &layout->shape;
    size_t bytes = 0;
    for (size_t layer = 0; layer < shape->n_layers; layer++) {
        assert_memory_equal(kvcache_layer_policy(layout, layer), rule_of(layout, layer), sizeof(KvLayerPolicy));
        assert_int_equal(layout->layers[layer].n_stores, 1 + rule_of(layout, layer)->n_tiers);
        for (size_t s = 0; s < layout->layers[layer].n_stores; s++) {
            check_store(layout, layer, s);
            bytes += layout->layers[layer].stores[s].bytes;
        }
    }
    assert_int_equal(bytes, layout->kept_bytes);
    KvLedger ledger;
    kv_ledger_at(layout, shape->n_ctx, &ledger);
    assert_int_equal(ledger.bytes, bytes);
    assert_int_equal(ledger.working_bytes, layout->working_bytes);
}

/* ---- Tokens */

/* For each byte of the cache, the token that was put there, as token_number() of its layer, KV head, side and position;
 * for a group, of its first token. */
static uint32_t *memory;
static size_t memory_bytes;

typedef struct Place {
    size_t layer, kv_head;
    KvSide side;
} Place;

static uint32_t token_number(const Place *p, size_t position) {
    return (uint32_t)(((p->layer * MAX_HEADS + p->kv_head) * KV_SIDES + p->side) * STREAMED + position + 1);
}

static uint32_t *byte_at(size_t offset) {
    assert_true(offset < memory_bytes);
    return &memory[offset];
}

/* The positions of a run must be [position, position + n_tokens). Returns where they end. */
static size_t check_run(const KvCacheLayout *layout, const Place *p, const KvRun *run, size_t position) {
    const KvStore *store = &layout->layers[p->layer].stores[run->store];
    const KvArray *array = run->in_batch ? &layout->batch[p->side] : &store->array[p->side];
    size_t step = run->in_batch ? 1 : store->slot_tokens;
    size_t at = kvcache_layout_at(layout, p->layer, run, p->side, p->kv_head);
    assert_int_equal(run->n_tokens % step, 0);
    assert_true(run->n_tokens > 0 && run->slot + run->n_tokens / step <= array->n_slots);
    for (size_t i = 0; i < run->n_tokens; i += step, at += array->slot_bytes)
        assert_int_equal(*byte_at(at), token_number(p, position + i));
    return position + run->n_tokens;
}

/* The sink, then without a gap all that was not dropped, each token in the tier that the plan says. */
static void check_view(const KvCacheLayout *layout, const Place *p, size_t n_tokens, size_t position) {
    KvRun runs[KV_MAX_RUNS];
    KvPlan plan = kv_plan(rule_of(layout, p->layer), layout->policy.group, position + 1);
    size_t n = kvcache_layout_view(layout, p->layer, n_tokens, position, runs), at = 0,
           dropped = kv_plan_dropped(&plan);
    bool shifts = kv_layer_shifts(rule_of(layout, p->layer));
    assert_true(n <= KV_MAX_RUNS);
    for (size_t i = 0; i < n; i++) {
        at += at == plan.n_sink ? dropped : 0;
        size_t begin = runs[i].store == KV_SINK ? 0 : kv_plan_begin(&plan, runs[i].store - 1);
        size_t end = runs[i].store == KV_SINK ? plan.n_sink : kv_plan_end(&plan, runs[i].store - 1), first = at;
        at = check_run(layout, p, &runs[i], at);
        assert_true(begin <= first && at <= end);
        assert_int_equal(runs[i].shifted, runs[i].store == KV_SINK && dropped > 0 && shifts);
    }
    assert_int_equal(at, position + 1);
}

/* A group that enters a tier, and must be there to be read in the tier before. */
static void enter_group(const KvCacheLayout *layout, const Place *p, size_t n_tokens, size_t tier, size_t index) {
    const KvLayerLayout *l = &layout->layers[p->layer];
    size_t group = layout->policy.group, position = rule_of(layout, p->layer)->sink + index * group;
    if (tier == 1) {
        KvRun runs[2];
        size_t n = kvcache_layout_rows(layout, p->layer, KV_TIER(0), n_tokens, position, position + group, runs);
        for (size_t i = 0, at = position; i < n; i++)
            at = check_run(layout, p, &runs[i], at);
    } else {
        const KvStore *before = &l->stores[KV_TIER(tier - 1)];
        size_t at = kv_array_at(&before->array[p->side], p->kv_head, kv_store_slot(before, index));
        assert_int_equal(*byte_at(at), token_number(p, position));
    }
    const KvStore *store = &l->stores[KV_TIER(tier)];
    *byte_at(kv_array_at(&store->array[p->side], p->kv_head, kv_store_slot(store, index))) = token_number(p, position);
}

static void append(const KvCacheLayout *layout, const Place *p, size_t n_tokens, size_t n_new) {
    const KvLayerPolicy *rule = rule_of(layout, p->layer);
    size_t group = layout->policy.group;
    KvPlan before = kv_plan(rule, group, n_tokens), after = kv_plan(rule, group, n_tokens + n_new);
    for (size_t t = 0; t < n_new; t++)
        *byte_at(kv_array_at(&layout->batch[p->side], p->kv_head, t)) = token_number(p, n_tokens + t);
    for (size_t tier = 1; tier < rule->n_tiers; tier++)
        for (size_t n = before.entered[tier]; n < after.entered[tier]; n += group)
            enter_group(layout, p, n_tokens, tier, n / group);
}

static void move(const Place *p, const KvArray *to, size_t to_slot, const KvArray *from, size_t from_slot, size_t n) {
    for (size_t i = 0; i < n; i++)
        *byte_at(kv_array_at(to, p->kv_head, to_slot + i)) = *byte_at(kv_array_at(from, p->kv_head, from_slot + i));
}

static void commit(const KvCacheLayout *layout, const Place *p, size_t n_tokens, size_t n_new) {
    const KvStore *stores = layout->layers[p->layer].stores;
    const KvArray *sink = &stores[KV_SINK].array[p->side], *tail = &stores[KV_TIER(0)].array[p->side];
    const KvArray *batch = &layout->batch[p->side];
    KvMove m = kvcache_layout_move(layout, p->layer, n_tokens, n_new);
    move(p, sink, m.in_sink, batch, 0, m.to_sink);
    move(p, tail, 0, tail, m.n_leaving, m.n_staying);
    move(p, tail, m.n_staying, batch, m.to_tail, n_new - m.to_tail);
}

static void check_queries(const KvCacheLayout *layout, const Place *p, size_t n_tokens, size_t n_new) {
    size_t step = 1 + n_new / 4;
    for (size_t t = 0; t < n_new; t += step)
        check_view(layout, p, n_tokens, n_tokens + t);
    check_view(layout, p, n_tokens, n_tokens + n_new - 1);
}

/* All heads and sides of a layer, then the next layer, so that one that writes into another's place is noticed. */
static void for_each_place(const KvCacheLayout *layout, size_t layer, size_t n_tokens, size_t n_new,
                           void (*visit)(const KvCacheLayout *, const Place *, size_t n_tokens, size_t n_new)) {
    for (size_t kv_head = 0; kv_head < layout->shape.n_kv_heads; kv_head++)
        for (KvSide side = 0; side < KV_SIDES; side++)
            visit(layout, &(Place){layer, kv_head, side}, n_tokens, n_new);
}

static void check_tokens(const KvCacheLayout *layout) {
    size_t last = layout->streams ? STREAMED : layout->shape.n_ctx;
    memory_bytes = layout->kept_bytes + layout->working_bytes;
    memory = calloc(memory_bytes, sizeof *memory);
    for (size_t n_tokens = 0, n; n_tokens < last; n_tokens += n) {
        n = random_below(4) == 0 ? 1 + random_below(layout->shape.n_batch) : layout->shape.n_batch;
        n = n < last - n_tokens ? n : last - n_tokens;
        for (size_t layer = 0; layer < layout->shape.n_layers; layer++) {
            for_each_place(layout, layer, n_tokens, n, append);
            for_each_place(layout, layer, n_tokens, n, check_queries);
            for_each_place(layout, layer, n_tokens, n, commit);
        }
    }
    free(memory);
}

/* ---- */

static void for_each_case(void (*check)(const KvCacheLayout *)) {
    Error error = {0};
    size_t n_streaming = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        KvShape shape;
        KvPolicy policy;
        KvCacheLayout layout;
        random_case(&shape, &policy);
        assert_int_equal(kvcache_layout_open(&layout, &shape, &policy, &PADDED, &error), 0);
        n_streaming += layout.streams;
        check(&layout);
        kvcache_layout_close(&layout);
    }
    assert_in_range(n_streaming, 10, N_CASES - 10);
}

static void test_arrays(void **state) {
    (void)state;
    for_each_case(check_arrays);
}

static void test_sizes(void **state) {
    (void)state;
    for_each_case(check_sizes);
}

static void test_tokens(void **state) {
    (void)state;
    for_each_case(check_tokens);
}

/* As large as --shape takes. */
static void test_overflow(void **state) {
    (void)state;
    Error error = {0};
    KvCacheLayout layout;
    KvPolicy policy = kv_policy_full();
    KvShape shape = {(size_t)1 << 16, (size_t)1 << 16, (size_t)1 << 16, (size_t)1 << 40, 128, {{0}}, 0};
    assert_int_equal(kvcache_layout_open(&layout, &shape, &policy, &KV_PLAIN_RECORDS, &error), ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "use a smaller --n_ctx"));
    assert_null(layout.layers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
