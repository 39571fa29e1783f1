/* Where each token is: the one place that knows the arithmetic of tiers. The layout, evaluators, the ledger and tests
 * all ask kv_plan().
 *
 * Tokens are numbered by position. The first `sink` are the sink; of the n others, n_0 = n have entered tier 0, and
 *
 *     n_(t+1) = group * floor(max(0, n_t - capacity_t) / group)
 *
 * have left tier t for tier t + 1: whole groups only, so a tier holds at least its capacity (once filled) and less than
 * a group more. What has left the last tier is dropped. */
#ifndef STOWKV_PLAN_H
#define STOWKV_PLAN_H

#include "kvcache/policy.h"

typedef struct KvPlan {
    size_t n_sink; /* tokens in the sink */
    size_t n_tiers;
    size_t entered[KV_MAX_TIERS + 1]; /* n_t; entered[n_tiers]: tokens dropped */
} KvPlan;

/* The plan of a layer once `n_tokens` tokens have come: what a query at position n_tokens - 1 sees. */
KvPlan kv_plan(const KvLayerPolicy *policy, size_t group, size_t n_tokens);

static inline size_t kv_plan_held(const KvPlan *plan, size_t tier) {
    return plan->entered[tier] - plan->entered[tier + 1];
}

static inline size_t kv_plan_dropped(const KvPlan *plan) {
    return plan->entered[plan->n_tiers];
}

/* Positions [begin, end) of the tokens in a tier. */
static inline size_t kv_plan_begin(const KvPlan *plan, size_t tier) {
    return plan->n_sink + plan->entered[tier + 1];
}

static inline size_t kv_plan_end(const KvPlan *plan, size_t tier) {
    return plan->n_sink + plan->entered[tier];
}

#endif
