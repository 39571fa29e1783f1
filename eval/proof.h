/* What keeps a label honest: a figure under a policy's name is only given where the policy was really read. */
#ifndef STOWKV_PROOF_H
#define STOWKV_PROOF_H

#include "kvcache/kvcache.h"

/* Whether a query that sees n_tokens has tokens behind it that left the first tier. */
bool policy_changes_query(const KvCache *cache, size_t n_tokens);

/* Fails where attention has read, or the cache has encoded, another number of bytes or tokens in any tier than the plan
 * says for n_tokens that went through the cache from empty. */
int proof_check(const KvCache *cache, size_t n_tokens, Error *error);

#endif
