/* Whether a policy suits a model. */
#ifndef STOWKV_POLICY_CHECK_H
#define STOWKV_POLICY_CHECK_H

#include "kvcache/policy.h"

/* Errors: a group that is not 32 or 64, layers that do not exist or that no rule names, sinks and bounded tiers that
 * are larger than the context, no tier that holds a token, rotation where kv_policy_row_dim() is no power of two. */
int kv_policy_check(const KvPolicy *policy, size_t n_layers, size_t head_dim, size_t n_ctx, Error *error);

#endif
