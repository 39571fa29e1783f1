/* Whether a model can have a policy. */
#ifndef STOWKV_POLICY_CHECK_H
#define STOWKV_POLICY_CHECK_H

#include "kvcache/policy.h"

/* Errors: layers that do not exist or that no rule names, sinks and bounded tiers that are larger than the context, no
 * token kept, codecs that cannot group head_dim, rotation where head_dim is no power of two. */
int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error);

#endif
