/* Proof that a figure under a policy's name comes from a cache with that policy. */
#ifndef STOWKV_PROOF_H
#define STOWKV_PROOF_H

#include "kvcache/kvcache.h"
#include "kvcache/ledger.h"

#include <stdio.h>

/* Whether, once n_tokens have come, tokens of any layer have left the first tier: encoded or dropped. */
bool policy_changes_query(const KvCache *cache, size_t n_tokens);

/* Fails unless attention has read as many bytes of each tier, and as many tokens have entered each, as the plan says
 * for n_tokens that went through an empty cache. */
int proof_check(const KvCache *cache, size_t n_tokens, Error *error);

/* The same of those tokens that came behind n_before, where the cache was given the state of n_before tokens with
 * counters at 0 (kvcache_resume()). */
int proof_check_behind(const KvCache *cache, size_t n_before, Error *error);

/* What attention has read of each tier, as lines of a table; below its heading, where that is wanted. */
void proof_print(const KvLedger *ledger, const KvPolicy *policy, bool heading, FILE *stream);

#endif
