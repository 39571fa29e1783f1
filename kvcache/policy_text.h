/* What policy.c and policy_text.c share. */
#ifndef STOWKV_POLICY_TEXT_H
#define STOWKV_POLICY_TEXT_H

#include "kvcache/policy.h"

#define KV_TIER_TEXT   96
#define KV_LAYERS_TEXT 64

/* "int8/q4_0:1024", and "@0-1:" for a rule's layers. */
void kv_tier_print(const KvTier *tier, char text[KV_TIER_TEXT]);
void kv_rule_print_layers(const KvRule *rule, char text[KV_LAYERS_TEXT]);

bool kv_rule_names_all_layers(const KvRule *rule);
bool kv_layer_is_bounded(const KvLayerPolicy *layer);

/* The first layer from `layer` on that no rule names; SIZE_MAX where all are named. */
size_t kv_policy_first_unnamed_layer(const KvPolicy *policy, size_t layer);

#endif
