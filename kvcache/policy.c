/* Policies: the presets, questions about a policy, and the check against a model; see policy.h. The text form is
 * policy_text.c's subject, where tokens are at a position plan.c's. */
#include "kvcache/policy_text.h"

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

static bool is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

const char *const *kv_rotation_names(void) {
    static const char *const NAMES[KV_ROTATION_COUNT + 1] = {
        [KV_ROTATE_AUTO] = "auto", [KV_ROTATE_ON] = "on",    [KV_ROTATE_OFF] = "off",
        [KV_ROTATE_KEYS] = "k",    [KV_ROTATE_VALUES] = "v", [KV_ROTATION_COUNT] = NULL};
    return NAMES;
}

bool kv_policy_rotates(const KvPolicy *policy, KvSide side, KvCodecId codec, size_t head_dim) {
    if (codec == KV_F16)
        return false;
    if (policy->rotation == KV_ROTATE_AUTO)
        return kv_codec_nominal_bits(kv_codec(codec)) < 8 && is_power_of_two(head_dim);
    return policy->rotation == KV_ROTATE_ON ||
           policy->rotation == (side == KV_KEYS ? KV_ROTATE_KEYS : KV_ROTATE_VALUES);
}

bool kv_policy_is_full(const KvPolicy *policy) {
    for (size_t i = 0; i < policy->n_rules; i++)
        if (policy->rules[i].policy.tiers[0].capacity != KV_UNLIMITED)
            return false;
    return true;
}

/* The check against a model */

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

static int check_codec(const KvPolicy *policy, KvSide side, KvCodecId id, const char *where, size_t head_dim,
                       Error *error) {
    KvGroup group = {.n_tokens = policy->group,
                     .head_dim = head_dim,
                     .block = policy->group,
                     .rotated = kv_policy_rotates(policy, side, id, head_dim)};
    if (group.rotated && !is_power_of_two(head_dim))
        return error_set(error, ERROR_ARGUMENT,
                         "%s%s cannot be rotated: head_dim is %zu, not a power of two; use --kv_rotate auto, which "
                         "leaves it unrotated",
                         where, kv_codec_name(kv_codec(id)), head_dim);
    return kv_codec_check(kv_codec(id), &group, error);
}

static int check_rule(const KvPolicy *policy, const KvRule *rule, size_t head_dim, size_t n_ctx, Error *error) {
    char where[KV_LAYERS_TEXT] = "";
    if (!kv_rule_names_all_layers(rule))
        kv_rule_print_layers(rule, where);
    if (check_sizes(&rule->policy, where, n_ctx, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t t = 1; t < rule->policy.n_tiers; t++) {
        const KvTier *tier = &rule->policy.tiers[t];
        int status = check_codec(policy, KV_KEYS, tier->k, where, head_dim, error);
        if (status == 0)
            status = check_codec(policy, KV_VALUES, tier->v, where, head_dim, error);
        if (status < 0)
            return status;
    }
    return 0;
}

int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error) {
    if (policy->group != 32 && policy->group != 64)
        return error_set(error, ERROR_ARGUMENT, "groups of %zu tokens; --kv_block_size takes 32 or 64", policy->group);
    if (check_layers(policy, n_layers, error) < 0)
        return ERROR_ARGUMENT;
    for (size_t i = 0; i < policy->n_rules; i++) {
        int status = check_rule(policy, &policy->rules[i], head_dim, n_ctx, error);
        if (status < 0)
            return status;
    }
    return 0;
}
