/* The presets, and questions about a policy; see policy.h. plan.c says where tokens are at a position. */
#include "kvcache/policy.h"

#include "base/checked.h"

#define DEFAULT_GROUP 64

/* Presets */

static KvPolicy preset(KvLayerPolicy layer) {
    return (KvPolicy){
        .n_rules = 1, .rules = {{0, SIZE_MAX, layer}}, .group = DEFAULT_GROUP, .rotation = KV_ROTATE_AUTO};
}

KvPolicy kv_policy_full(void) {
    return preset((KvLayerPolicy){.n_tiers = 1, .tiers = {{KV_F16, KV_F16, KV_UNLIMITED}}});
}

KvPolicy kv_policy_compressed(size_t sink, size_t window) {
    return preset((KvLayerPolicy){.sink = sink, .n_tiers = 1, .tiers = {{KV_F16, KV_F16, window}}});
}

KvPolicy kv_policy_quantized(size_t sink, size_t window, KvCodecId k, KvCodecId v) {
    return preset(
        (KvLayerPolicy){.sink = sink, .n_tiers = 2, .tiers = {{KV_F16, KV_F16, window}, {k, v, KV_UNLIMITED}}});
}

/* Questions about a policy */

static bool names_layer(const KvRule *rule, size_t layer) {
    return rule->first_layer <= layer && layer <= rule->last_layer;
}

bool kv_rule_names_all_layers(const KvRule *rule) {
    return rule->first_layer == 0 && rule->last_layer == SIZE_MAX;
}

bool kv_layer_is_bounded(const KvLayerPolicy *layer) {
    return layer->tiers[layer->n_tiers - 1].capacity != KV_UNLIMITED;
}

KvLayerPolicy kv_layer_within(const KvLayerPolicy *layer, size_t lookback) {
    KvLayerPolicy within = *layer;
    size_t rest = lookback;
    within.lookback = lookback;
    for (size_t t = 0; t < within.n_tiers; t++) {
        within.tiers[t].capacity = at_most(within.tiers[t].capacity, rest);
        rest -= within.tiers[t].capacity;
        if (rest == 0)
            within.n_tiers = t + 1;
    }
    return within;
}

static const KvRule *rule_of_layer(const KvPolicy *policy, size_t layer) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (names_layer(&policy->rules[i], layer))
            return &policy->rules[i];
    return NULL;
}

const KvLayerPolicy *kv_policy_of_layer(const KvPolicy *policy, size_t layer) {
    const KvRule *rule = rule_of_layer(policy, layer);
    return rule != NULL ? &rule->policy : NULL;
}

size_t kv_policy_first_unnamed_layer(const KvPolicy *policy, size_t layer) {
    const KvRule *rule;
    while (layer != SIZE_MAX && (rule = rule_of_layer(policy, layer)) != NULL)
        layer = rule->last_layer == SIZE_MAX ? SIZE_MAX : rule->last_layer + 1;
    return layer;
}

const char *kv_policy_mode(const KvPolicy *policy) {
    const KvLayerPolicy *layer = &policy->rules[0].policy;
    if (policy->n_rules != 1 || !kv_rule_names_all_layers(&policy->rules[0]) || layer->n_tiers > 2)
        return "cascade";
    if (layer->n_tiers == 1) /* a sink changes nothing where no token ever leaves */
        return kv_layer_is_bounded(layer) ? "compressed" : "full";
    return kv_layer_is_bounded(layer) ? "cascade" : "quantized";
}

static bool layer_streams(const KvLayerPolicy *layer, size_t n_ctx) {
    size_t total = layer->sink;
    for (size_t t = 0; t < layer->n_tiers; t++)
        if (!checked_add(total, layer->tiers[t].capacity, &total))
            return false;
    return total <= n_ctx;
}

bool kv_policy_streams(const KvPolicy *policy, size_t n_ctx) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (!layer_streams(&policy->rules[i].policy, n_ctx))
            return false;
    return true;
}

size_t kv_policy_row_dim(const KvPolicy *policy, size_t head_dim) {
    const KvGroup group = {.n_tokens = policy->group, .head_dim = head_dim, .block = policy->group};
    size_t multiple = 1; /* of powers of two the largest is a multiple of all */
    for (size_t i = 0; i < policy->n_rules; i++)
        for (size_t t = 1; t < policy->rules[i].policy.n_tiers; t++) {
            const KvTier *tier = &policy->rules[i].policy.tiers[t];
            multiple = at_least(multiple, kv_codec_row_multiple(kv_codec(tier->k), &group));
            multiple = at_least(multiple, kv_codec_row_multiple(kv_codec(tier->v), &group));
        }
    return round_up(head_dim, multiple);
}

bool kv_policy_rotates(const KvPolicy *policy, KvSide side, KvCodecId codec, size_t row_dim) {
    if (codec == KV_F16)
        return false;
    if (policy->rotation == KV_ROTATE_AUTO)
        return is_power_of_two(row_dim);
    return policy->rotation == KV_ROTATE_ON ||
           policy->rotation == (side == KV_KEYS ? KV_ROTATE_KEYS : KV_ROTATE_VALUES);
}

bool kv_policy_rounds_aware(const KvPolicy *policy, KvCodecId codec) {
    return policy->rounding != KV_ROUND_NEAREST && kv_codec_rounds_aware(kv_codec(codec));
}

bool kv_policy_fits_values(const KvPolicy *policy, KvCodecId codec) {
    return policy->rounding != KV_ROUND_NEAREST && kv_codec_is_fitted(kv_codec(codec), KV_VALUES);
}

bool kv_policy_is_full(const KvPolicy *policy) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (policy->rules[i].policy.tiers[0].capacity != KV_UNLIMITED)
            return false;
    return true;
}
