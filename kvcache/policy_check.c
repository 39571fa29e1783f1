/* See policy_check.h. */
#include "kvcache/policy_check.h"

#include "base/checked.h"
#include "kvcache/policy_text.h"

static int check_layers(const KvPolicy *policy, size_t n_layers, Error *error) {
    for (size_t i = 0; i < policy->n_rules; i++) {
        const KvRule *rule = &policy->rules[i];
        size_t layer = rule->last_layer == SIZE_MAX ? rule->first_layer : rule->last_layer;
        if (layer >= n_layers)
            return error_set(error, ERROR_ARGUMENT,
                             "the cache policy names layer %zu, the model has %zu; layers are counted from 0", layer,
                             n_layers);
    }
    size_t unnamed = kv_policy_first_unnamed_layer(policy, 0);
    if (unnamed < n_layers)
        return error_set(error, ERROR_ARGUMENT,
                         "the cache policy has no rule for layer %zu, the model has %zu; end it with a rule for @*",
                         unnamed, n_layers);
    return 0;
}

/* `where` begins messages: the rule's layers. */
static int check_sizes(const KvLayerPolicy *layer, const char *where, size_t n_ctx, Error *error) {
    const char *cure = "make it smaller, or give a larger --n_ctx";
    bool holds = false;
    if (layer->sink > n_ctx)
        return error_set(error, ERROR_ARGUMENT, "%ssink=%zu is more than the context of %zu tokens; %s", where,
                         layer->sink, n_ctx, cure);
    for (size_t t = 0; t < layer->n_tiers; t++) {
        char text[KV_TIER_TEXT];
        if (layer->tiers[t].capacity == KV_UNLIMITED)
            continue;
        kv_tier_print(&layer->tiers[t], text);
        if (layer->tiers[t].capacity > n_ctx)
            return error_set(error, ERROR_ARGUMENT, "%s%s is more than the context of %zu tokens; %s", where, text,
                             n_ctx, cure);
        holds = holds || layer->tiers[t].capacity > 0;
    }
    if (kv_layer_is_bounded(layer) && !holds)
        return error_set(error, ERROR_ARGUMENT,
                         "%sno token outside the sink is kept, not even the newest; give a tier a capacity", where);
    return 0;
}

static int check_codec(const KvPolicy *policy, KvSide side, KvCodecId id, const char *where, size_t row_dim,
                       Error *error) {
    KvGroup group = {.n_tokens = policy->group,
                     .head_dim = row_dim,
                     .block = policy->group,
                     .rotated = kv_policy_rotates(policy, side, id, row_dim)};
    if (group.rotated && !is_power_of_two(row_dim))
        return error_set(error, ERROR_ARGUMENT,
                         "%s%s cannot be rotated: rows have %zu elements, not a power of two; use --kv_rotate auto, "
                         "which leaves it unrotated",
                         where, kv_codec_name(kv_codec(id)), row_dim);
    return kv_codec_check(kv_codec(id), &group, error);
}

static int check_rule(const KvPolicy *policy, const KvRule *rule, size_t row_dim, size_t n_ctx, Error *error) {
    char where[KV_LAYERS_TEXT] = "";
    if (!kv_rule_names_all_layers(rule))
        kv_rule_print_layers(rule, where);
    if (check_sizes(&rule->policy, where, n_ctx, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t t = 1; t < rule->policy.n_tiers; t++) {
        const KvTier *tier = &rule->policy.tiers[t];
        int status = check_codec(policy, KV_KEYS, tier->k, where, row_dim, error);
        if (status == 0 && policy->rounding == KV_ROUND_AWARE && !kv_codec_rounds_aware(kv_codec(tier->k)))
            status = error_set(error, ERROR_ARGUMENT,
                               "%skeys in %s cannot be rounded with an eye to the queries; use --kv_rounding auto, "
                               "which rounds them to nearest",
                               where, kv_codec_name(kv_codec(tier->k)));
        if (status == 0)
            status = check_codec(policy, KV_VALUES, tier->v, where, row_dim, error);
        if (status < 0)
            return status;
    }
    return 0;
}

int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error) {
    if (!kv_is_group_size(policy->group))
        return error_set(error, ERROR_ARGUMENT, "groups of %zu tokens; --kv_block_size takes 32 or 64", policy->group);
    if (check_layers(policy, n_layers, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t i = 0; i < policy->n_rules; i++) {
        int status = check_rule(policy, &policy->rules[i], kv_policy_row_dim(policy, head_dim), n_ctx, error);
        if (status < 0)
            return status;
    }
    return 0;
}
