/* Where each token is: the one place that knows the arithmetic of tiers. The layout, evaluators, the ledger and tests
 * all ask kv_plan(), and so do kernels on a GPU.
 *
 * Tokens are numbered by position. The first `sink` are the sink; of the n others, n_0 = n have entered tier 0, and
 *
 *     n_(t+1) = group * floor(max(0, n_t - capacity_t) / group)
 *
 * have left tier t for tier t + 1: whole groups only, so a tier holds at least its capacity (once filled) and less than
 * a group more. What has left the last tier is dropped.
 *
 * A layer may look back on so many tokens only (a sliding window). Of what the sink and the tiers hold, the oldest are
 * hidden from a query then: as many as are more than that. */
#ifndef STOWKV_PLAN_H
#define STOWKV_PLAN_H

#include "base/checked.h"
#include "base/host_device.h"
#include "kvcache/policy.h"

typedef struct KvPlan {
    size_t n_sink; /* tokens in the sink */
    size_t n_tiers;
    size_t entered[KV_MAX_TIERS + 1]; /* n_t; entered[n_tiers]: tokens dropped */
} KvPlan;

/* The two steps of it, for kernels that go from tier to tier: tokens in the sink, and n_(t+1) of n_t. */
static HOST_DEVICE inline size_t kv_plan_sink(const KvLayerPolicy *policy, size_t n_tokens) {
    return n_tokens < policy->sink ? n_tokens : policy->sink;
}

static HOST_DEVICE inline size_t kv_plan_left(const KvTier *tier, size_t group, size_t entered) {
    size_t surplus = entered > tier->capacity ? entered - tier->capacity : 0; /* none beyond KV_UNLIMITED */
    return surplus / group * group;
}

/* The plan of a layer once `n_tokens` tokens have come: what a query at position n_tokens - 1 sees. */
static HOST_DEVICE inline KvPlan kv_plan(const KvLayerPolicy *policy, size_t group, size_t n_tokens) {
    KvPlan plan = {kv_plan_sink(policy, n_tokens), policy->n_tiers, {0}};
    plan.entered[0] = n_tokens - plan.n_sink;
    for (size_t t = 0; t < policy->n_tiers; t++)
        plan.entered[t + 1] = kv_plan_left(&policy->tiers[t], group, plan.entered[t]);
    return plan;
}

/* How many tokens must come for `entered` of them, whole groups, to have entered a tier that no unlimited one precedes:
 * the smallest n_tokens for which kv_plan() says so. */
static HOST_DEVICE inline size_t kv_plan_arrival(const KvLayerPolicy *policy, size_t group, size_t tier,
                                                 size_t entered) {
    while (tier-- > 0) {
        entered += policy->tiers[tier].capacity;
        if (tier > 0)
            entered = round_up(entered, group);
    }
    return policy->sink + entered;
}

static HOST_DEVICE inline size_t kv_plan_held(const KvPlan *plan, size_t tier) {
    return plan->entered[tier] - plan->entered[tier + 1];
}

static HOST_DEVICE inline size_t kv_plan_dropped(const KvPlan *plan) {
    return plan->entered[plan->n_tiers];
}

/* Tokens held in all that a query does not see, the oldest ones: those beyond the layer's lookback. */
static HOST_DEVICE inline size_t kv_plan_hidden(const KvLayerPolicy *policy, const KvPlan *plan) {
    size_t held = plan->n_sink + plan->entered[0] - kv_plan_dropped(plan);
    return policy->lookback > 0 && held > policy->lookback ? held - policy->lookback : 0;
}

/* Positions by which the sink is nearer to a query than it was: tokens that the policy has dropped between them. */
static HOST_DEVICE inline size_t kv_plan_shift(const KvLayerPolicy *policy, const KvPlan *plan) {
    return kv_layer_shifts(policy) ? kv_plan_dropped(plan) : 0;
}

/* Positions [begin, end) of the tokens in a tier. */
static HOST_DEVICE inline size_t kv_plan_begin(const KvPlan *plan, size_t tier) {
    return plan->n_sink + plan->entered[tier + 1];
}

static HOST_DEVICE inline size_t kv_plan_end(const KvPlan *plan, size_t tier) {
    return plan->n_sink + plan->entered[tier];
}

#endif
