/* The cache policy as data: a sink and a list of tiers, youngest first. A token enters the first tier, and what leaves
 * a tier enters the next; what leaves the last is dropped. Full, compressed and quantized modes are presets of this.
 *
 * Text form, parsed and printed (the general form of the command line):
 *
 *     sink=16,f16:32,int8:1024,q4_0:*       codec:capacity in tokens; * is unlimited and can only come last
 *     sink=4,f16:128,int8/q4_0:*            K's codec / V's codec
 *     @0-1:f16:*;@*:sink=16,f16:32,int8:*   rules by layer; the first that names a layer holds for it
 *     rotate=off,block=32,f16:32,q4_0:*     in front of all rules: KvPolicy.rotation and .group, where not the default
 *
 * A policy whose first tier is not f16 gets "f16:0" in front of it: the youngest, incomplete group is always FP16. */
#ifndef STOWKV_POLICY_H
#define STOWKV_POLICY_H

#include "kvcache/codec/codec.h"

#define KV_MAX_TIERS 8
#define KV_MAX_RULES 32
#define KV_UNLIMITED SIZE_MAX

typedef struct KvTier {
    KvCodecId k, v;
    size_t capacity; /* in tokens, or KV_UNLIMITED */
} KvTier;

/* What one layer does. */
typedef struct KvLayerPolicy {
    size_t sink; /* the first tokens, kept in FP16 for ever */
    size_t n_tiers;
    KvTier tiers[KV_MAX_TIERS]; /* the first is f16 for K and V */
} KvLayerPolicy;

typedef struct KvRule {
    size_t first_layer, last_layer; /* inclusive; last_layer SIZE_MAX: to the end. @*: 0 to SIZE_MAX */
    KvLayerPolicy policy;
} KvRule;

typedef enum KvRotation {
    KV_ROTATE_AUTO, /* codecs below 8 bits, where head_dim is a power of two */
    KV_ROTATE_ON,   /* every encoded tier */
    KV_ROTATE_OFF,
    KV_ROTATE_KEYS,   /* the keys of every encoded tier alone */
    KV_ROTATE_VALUES, /* the values alone */
    KV_ROTATION_COUNT
} KvRotation;

typedef struct KvPolicy {
    size_t n_rules;
    KvRule rules[KV_MAX_RULES];
    size_t group;        /* tokens that move between tiers together, and elements of a block: 32 or 64 */
    KvRotation rotation; /* Hadamard rotation of encoded tiers */
} KvPolicy;

/* The presets of the user's modes, with one rule for all layers, groups of 64 and rotation auto. */
KvPolicy kv_policy_full(void);
KvPolicy kv_policy_compressed(size_t sink, size_t window);
KvPolicy kv_policy_quantized(size_t sink, size_t window, KvCodecId k, KvCodecId v);

/* Fills rules from `text`; group and rotation stay as they are unless it names them. An error points at the character
 * and names what was expected there, and the nearest codec for an unknown one. */
int kv_policy_parse(const char *text, KvPolicy *policy, Error *error);

/* "int8" or "k=int8,v=q4_0", as --kv_codec takes it. */
int kv_codec_pair_parse(const char *text, KvCodecId *k, KvCodecId *v, Error *error);

/* Room for the text form of any policy: KV_MAX_RULES rules of KV_MAX_TIERS tiers with the longest names and numbers. */
#define KV_POLICY_TEXT 16384

/* Writes the text form (parsing it into a preset gives the same policy); returns the length that it needs, as snprintf.
 */
size_t kv_policy_print(const KvPolicy *policy, char *text, size_t size);

/* Checks the policy against a model: layers that do not exist or that no rule names, sinks and bounded tiers that are
 * larger than the context, codecs that cannot group head_dim, rotation where head_dim is no power of two. */
int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error);

/* "full", "compressed", "quantized" or "cascade": which preset the rules are an instance of. */
const char *kv_policy_mode(const KvPolicy *policy);

/* Whether no token ever leaves the first tier, in any layer. */
bool kv_policy_is_full(const KvPolicy *policy);

const KvLayerPolicy *kv_policy_of_layer(const KvPolicy *policy, size_t layer);

/* Whether generation can go on for ever in constant memory: every layer's sink and tiers are bounded and together no
 * larger than the context, so that a query never meets a position that the model was not trained for. */
bool kv_policy_streams(const KvPolicy *policy, size_t n_ctx);

/* "auto", "on", "off", "k" or "v"; the names end with NULL. */
const char *const *kv_rotation_names(void);

/* Whether a tier's side is rotated: by KvPolicy.rotation, the codec's bits, and head_dim (auto leaves a head_dim that
 * is no power of two unrotated). */
bool kv_policy_rotates(const KvPolicy *policy, KvSide side, KvCodecId codec, size_t head_dim);

#endif
