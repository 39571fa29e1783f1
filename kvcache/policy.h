/* The cache policy as data: a sink and a list of tiers, youngest first. A token enters the first tier, and what leaves
 * a tier enters the next; what leaves the last is dropped. Full, compressed and quantized modes are presets of this.
 * policy_text.h has the text form; policy_check.h says whether a model can have a policy. */
#ifndef STOWKV_POLICY_H
#define STOWKV_POLICY_H

#include "base/host_device.h"
#include "kvcache/codec/codec.h"

#define KV_MAX_TIERS 8
#define KV_MAX_RULES 32
#define KV_UNLIMITED SIZE_MAX

typedef struct KvTier {
    KvCodecId k, v;
    size_t capacity; /* in tokens, or KV_UNLIMITED */
} KvTier;

/* The policy of one layer. */
typedef struct KvLayerPolicy {
    size_t sink; /* the first tokens, FP16 for ever */
    size_t n_tiers;
    KvTier tiers[KV_MAX_TIERS]; /* the first is f16 for K and V */
    size_t lookback;            /* tokens that a query sees at most, itself among them: a layer's sliding window, which
                                   the model has, not the user; 0: no bound */
} KvLayerPolicy;

typedef struct KvRule {
    size_t first_layer, last_layer; /* inclusive; last_layer SIZE_MAX: to the end. @*: 0 to SIZE_MAX */
    KvLayerPolicy policy;
} KvRule;

typedef enum KvRotation {
    KV_ROTATE_AUTO, /* every encoded tier, where a row's length is a power of two */
    KV_ROTATE_ON,   /* every encoded tier, and an error where it is none */
    KV_ROTATE_OFF,
    KV_ROTATE_KEYS,   /* the keys of every encoded tier alone */
    KV_ROTATE_VALUES, /* the values alone */
    KV_ROTATION_COUNT
} KvRotation;

/* How keys by channel and values of few bits are rounded (codec.h). */
typedef enum KvRounding {
    KV_ROUND_AUTO,    /* with an eye to the queries, and to what is added up, where codec and backend can */
    KV_ROUND_NEAREST, /* each number for itself */
    KV_ROUND_AWARE,   /* as auto, and an error where keys cannot be */
    KV_ROUNDING_COUNT
} KvRounding;

typedef struct KvPolicy {
    size_t n_rules;
    KvRule rules[KV_MAX_RULES];
    size_t group;        /* tokens that move between tiers together, and elements of a block: 32 or 64 */
    KvRotation rotation; /* Hadamard rotation of encoded tiers */
    KvRounding rounding; /* of encoded tiers */
} KvPolicy;

/* The presets of the user's modes, with one rule for all layers, groups of 64 and rotation auto. */
KvPolicy kv_policy_full(void);
KvPolicy kv_policy_compressed(size_t sink, size_t window);
KvPolicy kv_policy_quantized(size_t sink, size_t window, KvCodecId k, KvCodecId v);

/* "full", "compressed", "quantized" or "cascade": which preset the rules are an instance of. */
const char *kv_policy_mode(const KvPolicy *policy);

/* Whether no token ever leaves the first tier, in any layer. */
bool kv_policy_is_full(const KvPolicy *policy);

/* Of the first rule that names the layer; NULL where none does. */
const KvLayerPolicy *kv_policy_of_layer(const KvPolicy *policy, size_t layer);

/* The first layer from `layer` on that no rule names; SIZE_MAX where all are named. */
size_t kv_policy_first_unnamed_layer(const KvPolicy *policy, size_t layer);

bool kv_rule_names_all_layers(const KvRule *rule);

/* Whether tokens are dropped in the end: the last tier is not unlimited. */
bool kv_layer_is_bounded(const KvLayerPolicy *layer);

/* The policy where a layer looks back on so many tokens: its tiers together hold no more than those (and what completes
 * a group), since no query would see the rest. */
KvLayerPolicy kv_layer_within(const KvLayerPolicy *layer, size_t lookback);

/* Whether the lookback ends before the tiers do: what leaves them is out of sight then, and the sink with it, so that
 * positions stay as they are. */
static HOST_DEVICE inline bool kv_layer_slides(const KvLayerPolicy *layer) {
    size_t held = 0;
    for (size_t t = 0; t < layer->n_tiers && held < layer->lookback; t++)
        held += layer->tiers[t].capacity; /* of kv_layer_within(): no more than the lookback in all */
    return layer->lookback > 0 && held >= layer->lookback;
}

/* Whether tokens that are dropped bring the sink nearer: the policy drops them, not the lookback. */
static HOST_DEVICE inline bool kv_layer_shifts(const KvLayerPolicy *layer) {
    return layer->tiers[layer->n_tiers - 1].capacity != KV_UNLIMITED && !kv_layer_slides(layer);
}

/* Whether generation can go on for ever in constant memory: every layer's sink and tiers are bounded and together no
 * larger than the context, so that a query never meets a position that the model was not trained for. */
bool kv_policy_streams(const KvPolicy *policy, size_t n_ctx);

/* Elements of a row in the cache: head_dim, or as many more as make it a multiple of what each codec of the policy
 * needs. FP16 needs none. */
size_t kv_policy_row_dim(const KvPolicy *policy, size_t head_dim);

/* Whether a tier's side is rotated: by KvPolicy.rotation and kv_policy_row_dim() (auto leaves rows whose length is no
 * power of two unrotated). FP16 never is. */
bool kv_policy_rotates(const KvPolicy *policy, KvSide side, KvCodecId codec, size_t row_dim);

/* Whether keys in this codec are rounded with an eye to the queries, on a backend that can. */
bool kv_policy_rounds_aware(const KvPolicy *policy, KvCodecId codec);

/* Whether values in this codec are fitted, on a backend that can. */
bool kv_policy_fits_values(const KvPolicy *policy, KvCodecId codec);

#endif
