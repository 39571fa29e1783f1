/* Policies as text, parsed and printed (the general form of the command line):
 *
 *     sink=16,f16:32,int8:1024,q4_0:*       codec:capacity in tokens; * is unlimited and can only come last
 *     sink=4,f16:128,int8/q4_0:*            K's codec / V's codec
 *     @0-1:f16:*;@*:sink=16,f16:32,int8:*   rules by layer; the first that names a layer holds for it
 *     rotate=off,block=32,f16:32,q4_0:*     in front of all rules: KvPolicy.rotation and .group, where not the default
 *
 * A policy whose first tier is not f16 gets "f16:0" in front of it: the youngest, incomplete group is always FP16. */
#ifndef STOWKV_POLICY_TEXT_H
#define STOWKV_POLICY_TEXT_H

#include "kvcache/policy.h"

/* Fills rules from `text`; group and rotation stay as they are unless it names them. An error points at the character
 * and names what was expected there, and the nearest codec for an unknown one. */
int kv_policy_parse(const char *text, KvPolicy *policy, Error *error);

/* "int8" or "k=int8,v=q4_0", as --kv_codec takes it. */
int kv_codec_pair_parse(const char *text, KvCodecId *k, KvCodecId *v, Error *error);

/* Bytes for any policy's text form: KV_MAX_RULES rules of KV_MAX_TIERS tiers with the longest names and numbers. */
#define KV_POLICY_TEXT 16384

/* Writes the text form, cut off at `size` bytes; returns its whole length, as snprintf() does. Parsed into a preset, it
 * gives the same policy. */
size_t kv_policy_print(const KvPolicy *policy, char *text, size_t size);

/* Parts of it for messages: "int8/q4_0:1024", and "@0-1:" for a rule's layers. */
#define KV_TIER_TEXT   96
#define KV_LAYERS_TEXT 64
void kv_tier_print(const KvTier *tier, char text[KV_TIER_TEXT]);
void kv_rule_print_layers(const KvRule *rule, char text[KV_LAYERS_TEXT]);

/* "auto", "on", "off", "k" or "v"; the names end with NULL. */
const char *const *kv_rotation_names(void);
const char *const *kv_rounding_names(void);

#endif
