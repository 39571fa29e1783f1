/* The plan against cases computed by hand, against a simulator that moves single tokens through queues, and what must
 * hold for every plan: no token is lost, none comes back. */
#include "base/random.h"
#include "kvcache/plan.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N_POLICIES = 3000, N_TOKENS = 1500, MAX_TIERS_SHOWN = 3 };

static size_t below(size_t n) {
    static uint64_t state = 1;
    return (size_t)random_below(&state, n);
}

static const KvLayerPolicy FULL = {.n_tiers = 1, .tiers = {{.capacity = KV_UNLIMITED}}};
static const KvLayerPolicy COMPRESSED = {.sink = 16, .n_tiers = 1, .tiers = {{.capacity = 32}}};
static const KvLayerPolicy QUANTIZED = {
    .sink = 16, .n_tiers = 2, .tiers = {{.capacity = 32}, {.capacity = KV_UNLIMITED}}};
/* Groups of 64 fill the second tier to 128 before it may let 64 go and still hold its 100. */
static const KvLayerPolicy CASCADE = {
    .sink = 16, .n_tiers = 3, .tiers = {{.capacity = 32}, {.capacity = 100}, {.capacity = 64}}};
static const KvLayerPolicy ENCODE_ALL = {.n_tiers = 2, .tiers = {{.capacity = 0}, {.capacity = KV_UNLIMITED}}};
static const KvLayerPolicy PASS_THROUGH = {.n_tiers = 3,
                                           .tiers = {{.capacity = 0}, {.capacity = 0}, {.capacity = KV_UNLIMITED}}};
static const KvLayerPolicy NO_SINK = {.n_tiers = 1, .tiers = {{.capacity = 32}}};

static const struct {
    const KvLayerPolicy *policy;
    size_t group, n_tokens, sink, held[MAX_TIERS_SHOWN], dropped;
} CASES[] = {
    {&FULL, 64, 0, 0, {0}, 0},
    {&FULL, 64, 1, 0, {1}, 0},
    {&FULL, 64, 64, 0, {64}, 0},
    {&FULL, 64, 100000, 0, {100000}, 0},
    {&FULL, 64, SIZE_MAX, 0, {SIZE_MAX}, 0},

    {&COMPRESSED, 64, 0, 0, {0}, 0},
    {&COMPRESSED, 64, 1, 1, {0}, 0},
    {&COMPRESSED, 64, 15, 15, {0}, 0},
    {&COMPRESSED, 64, 16, 16, {0}, 0},
    {&COMPRESSED, 64, 17, 16, {1}, 0},
    {&COMPRESSED, 64, 47, 16, {31}, 0},
    {&COMPRESSED, 64, 48, 16, {32}, 0},
    {&COMPRESSED, 64, 49, 16, {33}, 0},
    {&COMPRESSED, 64, 111, 16, {95}, 0},
    {&COMPRESSED, 64, 112, 16, {32}, 64},
    {&COMPRESSED, 64, 175, 16, {95}, 64},
    {&COMPRESSED, 64, 176, 16, {32}, 128},
    {&COMPRESSED, 32, 79, 16, {63}, 0},
    {&COMPRESSED, 32, 80, 16, {32}, 32},
    {&COMPRESSED, 32, 111, 16, {63}, 32},
    {&COMPRESSED, 32, 112, 16, {32}, 64},

    {&QUANTIZED, 64, 0, 0, {0, 0}, 0},
    {&QUANTIZED, 64, 1, 1, {0, 0}, 0},
    {&QUANTIZED, 64, 15, 15, {0, 0}, 0},
    {&QUANTIZED, 64, 16, 16, {0, 0}, 0},
    {&QUANTIZED, 64, 47, 16, {31, 0}, 0},
    {&QUANTIZED, 64, 48, 16, {32, 0}, 0},
    {&QUANTIZED, 64, 111, 16, {95, 0}, 0},
    {&QUANTIZED, 64, 112, 16, {32, 64}, 0},
    {&QUANTIZED, 64, 113, 16, {33, 64}, 0},
    {&QUANTIZED, 64, 175, 16, {95, 64}, 0},
    {&QUANTIZED, 64, 176, 16, {32, 128}, 0},
    {&QUANTIZED, 32, 79, 16, {63, 0}, 0},
    {&QUANTIZED, 32, 80, 16, {32, 32}, 0},

    {&CASCADE, 64, 111, 16, {95, 0, 0}, 0},
    {&CASCADE, 64, 112, 16, {32, 64, 0}, 0},
    {&CASCADE, 64, 176, 16, {32, 128, 0}, 0},
    {&CASCADE, 64, 239, 16, {95, 128, 0}, 0},
    {&CASCADE, 64, 240, 16, {32, 128, 64}, 0},
    {&CASCADE, 64, 303, 16, {95, 128, 64}, 0},
    {&CASCADE, 64, 304, 16, {32, 128, 64}, 64},
    {&CASCADE, 64, 368, 16, {32, 128, 64}, 128},

    {&ENCODE_ALL, 64, 63, 0, {63, 0}, 0},
    {&ENCODE_ALL, 64, 64, 0, {0, 64}, 0},
    {&ENCODE_ALL, 64, 65, 0, {1, 64}, 0},
    {&PASS_THROUGH, 64, 63, 0, {63, 0, 0}, 0},
    {&PASS_THROUGH, 64, 64, 0, {0, 0, 64}, 0},
    {&PASS_THROUGH, 64, 130, 0, {2, 0, 128}, 0},

    /* SIZE_MAX is 63 more than a multiple of 64, and 32 of these 63 complete no group beyond the window. */
    {&NO_SINK, 64, 95, 0, {95}, 0},
    {&NO_SINK, 64, 96, 0, {32}, 64},
    {&NO_SINK, 64, SIZE_MAX, 0, {63}, SIZE_MAX - 63},
};

static void test_by_hand(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        KvPlan plan = kv_plan(CASES[i].policy, CASES[i].group, CASES[i].n_tokens);
        size_t n_tiers = CASES[i].policy->n_tiers, end = CASES[i].n_tokens;
        if (plan.n_sink != CASES[i].sink || kv_plan_dropped(&plan) != CASES[i].dropped || plan.n_tiers != n_tiers)
            fail_msg("case %zu: sink %zu, dropped %zu", i, plan.n_sink, kv_plan_dropped(&plan));
        for (size_t t = 0; t < n_tiers; t++) {
            if (kv_plan_held(&plan, t) != CASES[i].held[t])
                fail_msg("case %zu: tier %zu holds %zu", i, t, kv_plan_held(&plan, t));
            assert_int_equal(kv_plan_end(&plan, t), end); /* youngest first, without gaps */
            end -= CASES[i].held[t];
            assert_int_equal(kv_plan_begin(&plan, t), end);
        }
        assert_int_equal(end, CASES[i].sink + CASES[i].dropped);
    }
}

static KvLayerPolicy random_policy(void) {
    static const size_t sizes[] = {0, 1, 31, 32, 33, 63, 64, 65, 100, 128, 200};
    KvLayerPolicy policy = {.n_tiers = 1 + below(KV_MAX_TIERS)};
    const size_t n_sizes = sizeof sizes / sizeof *sizes;
    policy.sink = sizes[below(n_sizes)];
    for (size_t t = 0; t < policy.n_tiers; t++)
        policy.tiers[t].capacity = below(2) == 0 ? sizes[below(n_sizes)] : below(150);
    if (below(2) == 0)
        policy.tiers[policy.n_tiers - 1].capacity = KV_UNLIMITED;
    return policy;
}

static size_t random_group(void) {
    static const size_t groups[] = {32, 64, 1, 5};
    return groups[below(sizeof groups / sizeof *groups)];
}

/* What is in a tier as a queue of positions; the one after the last tier takes what is dropped. */
typedef struct Queue {
    size_t positions[N_TOKENS], head, tail;
} Queue;

static Queue queues[KV_MAX_TIERS + 1];

static size_t queue_length(const Queue *queue) {
    return queue->tail - queue->head;
}

/* Whole groups, oldest first, and never so many that fewer than the capacity stay. */
static void settle(const KvLayerPolicy *policy, size_t group) {
    for (size_t t = 0; t < policy->n_tiers; t++)
        while (policy->tiers[t].capacity != KV_UNLIMITED &&
               queue_length(&queues[t]) >= policy->tiers[t].capacity + group)
            for (size_t i = 0; i < group; i++)
                queues[t + 1].positions[queues[t + 1].tail++] = queues[t].positions[queues[t].head++];
}

static void compare(const KvLayerPolicy *policy, size_t group, size_t n_tokens, size_t n_sink) {
    KvPlan plan = kv_plan(policy, group, n_tokens);
    assert_int_equal(plan.n_sink, n_sink);
    assert_int_equal(kv_plan_dropped(&plan), queue_length(&queues[policy->n_tiers]));
    for (size_t t = 0; t < policy->n_tiers; t++) {
        const Queue *queue = &queues[t];
        if (kv_plan_held(&plan, t) != queue_length(queue))
            fail_msg("%zu tokens in groups of %zu: tier %zu holds %zu, simulated %zu", n_tokens, group, t,
                     kv_plan_held(&plan, t), queue_length(queue));
        assert_int_equal(plan.entered[t], queue->tail);
        if (queue_length(queue) > 0) {
            assert_int_equal(queue->positions[queue->head], kv_plan_begin(&plan, t));
            assert_int_equal(queue->positions[queue->tail - 1] + 1, kv_plan_end(&plan, t));
        }
    }
}

static void test_simulated(void **state) {
    (void)state;
    for (int i = 0; i < N_POLICIES; i++) {
        KvLayerPolicy policy = random_policy();
        size_t group = random_group(), n_sink = 0;
        for (size_t t = 0; t <= KV_MAX_TIERS; t++)
            queues[t].head = queues[t].tail = 0;
        compare(&policy, group, 0, 0);
        for (size_t position = 0; position < N_TOKENS; position++) {
            if (n_sink < policy.sink)
                n_sink++;
            else
                queues[0].positions[queues[0].tail++] = position;
            settle(&policy, group);
            compare(&policy, group, position + 1, n_sink);
        }
    }
}

/* Positions far apart, up to SIZE_MAX: tokens only ever move on, and each is in exactly one place. */
static void test_invariants(void **state) {
    (void)state;
    for (int i = 0; i < N_POLICIES; i++) {
        KvLayerPolicy policy = random_policy();
        size_t group = random_group(), n_tokens = 0;
        KvPlan before = kv_plan(&policy, group, 0);
        for (int step = 0; step < 100; step++) {
            size_t left = SIZE_MAX - n_tokens, stride = step < 60 ? 1 + below(100) : left / 4 + 1;
            n_tokens += stride < left ? stride : left;
            KvPlan plan = kv_plan(&policy, group, n_tokens);
            size_t sum = plan.n_sink + kv_plan_dropped(&plan);
            assert_true(plan.n_sink <= policy.sink);
            for (size_t t = 0; t < policy.n_tiers; t++) {
                size_t held = kv_plan_held(&plan, t), capacity = policy.tiers[t].capacity;
                sum += held;
                assert_true(plan.entered[t + 1] <= plan.entered[t]);
                assert_true(plan.entered[t] >= before.entered[t]);
                assert_int_equal(plan.entered[t + 1] % group, 0);
                assert_true(plan.entered[t + 1] == 0 || held >= capacity);
                assert_true(capacity == KV_UNLIMITED || held < capacity + group);
            }
            for (size_t t = 1; t <= policy.n_tiers && n_tokens < SIZE_MAX / 4; t++) {
                size_t arrival = kv_plan_arrival(&policy, group, t, plan.entered[t]);
                if (plan.entered[t] == 0)
                    continue;
                assert_true(kv_plan(&policy, group, arrival).entered[t] == plan.entered[t]);
                assert_true(kv_plan(&policy, group, arrival - 1).entered[t] < plan.entered[t]);
            }
            assert_true(kv_plan_dropped(&plan) >= kv_plan_dropped(&before));
            assert_int_equal(sum, n_tokens);
            before = plan;
        }
    }
}

/* What a query sees of n_tokens, oldest first: positions, and for each the tier, or that it is in the sink. */
typedef struct Sight {
    size_t n, positions[N_TOKENS], tiers[N_TOKENS];
} Sight;

static void look(const KvLayerPolicy *policy, size_t group, size_t n_tokens, Sight *out) {
    KvPlan plan = kv_plan(policy, group, n_tokens);
    out->n = 0;
    for (size_t i = 0; i < plan.n_sink; i++, out->n++) {
        out->positions[out->n] = i;
        out->tiers[out->n] = KV_MAX_TIERS;
    }
    for (size_t t = policy->n_tiers; t-- > 0;)
        for (size_t i = kv_plan_begin(&plan, t); i < kv_plan_end(&plan, t); i++, out->n++) {
            out->positions[out->n] = i;
            out->tiers[out->n] = t;
        }
}

/* A layer that looks back on some tokens holds less than the policy says, but of these tokens its queries see what the
 * policy shows, in the same tiers; and the sink is as near. */
static void test_lookback(void **state) {
    (void)state;
    static Sight all, within;
    for (int i = 0; i < N_POLICIES / 3; i++) {
        KvLayerPolicy policy = random_policy();
        size_t group = random_group(), lookback = 1 + below(300);
        KvLayerPolicy own = kv_layer_within(&policy, lookback);
        for (size_t n_tokens = 1; n_tokens <= N_TOKENS; n_tokens += 1 + below(30)) {
            KvPlan plan = kv_plan(&policy, group, n_tokens), own_plan = kv_plan(&own, group, n_tokens);
            size_t hidden = kv_plan_hidden(&own, &own_plan);
            look(&policy, group, n_tokens, &all);
            look(&own, group, n_tokens, &within);
            size_t seen = all.n < lookback ? all.n : lookback;
            assert_int_equal(within.n - hidden, seen);
            assert_memory_equal(within.positions + hidden, all.positions + all.n - seen, seen * sizeof *all.positions);
            assert_memory_equal(within.tiers + hidden, all.tiers + all.n - seen, seen * sizeof *all.tiers);
            assert_true(within.n < own.sink + lookback + group * own.n_tiers);
            if (within.positions[hidden] < plan.n_sink)
                assert_int_equal(kv_plan_shift(&own, &own_plan), kv_plan_dropped(&plan));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_invariants),
        cmocka_unit_test(test_lookback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
