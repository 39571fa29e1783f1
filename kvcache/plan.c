/* The arithmetic of tiers; see plan.h. Nothing here depends on what the tokens are or how they are stored. */
#include "kvcache/plan.h"

#include "base/checked.h"

KvPlan kv_plan(const KvLayerPolicy *policy, size_t group, size_t n_tokens) {
    KvPlan plan = {.n_sink = at_most(n_tokens, policy->sink), .n_tiers = policy->n_tiers};
    plan.entered[0] = n_tokens - plan.n_sink;
    for (size_t t = 0; t < policy->n_tiers; t++) {
        size_t n = plan.entered[t], capacity = policy->tiers[t].capacity;
        size_t surplus = n > capacity ? n - capacity : 0; /* none beyond KV_UNLIMITED */
        plan.entered[t + 1] = surplus / group * group;
    }
    return plan;
}
