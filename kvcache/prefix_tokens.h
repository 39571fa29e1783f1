/* Hashes of all beginnings of a list of tokens, under an identity: hash n - 1 is that of the first n tokens. Kept from
 * one question to the next, since those mostly go on where the last ended. */
#ifndef STOWKV_PREFIX_TOKENS_H
#define STOWKV_PREFIX_TOKENS_H

#include "base/error.h"
#include "kvcache/prefix/entry.h"

typedef struct PrefixTokens {
    char *identity;
    int32_t *ids;    /* (n_hashed), owned copies */
    PrefixKey *keys; /* (n_hashed) */
    size_t n_hashed, capacity;
    void *state; /* of the hash, after all n_hashed */
} PrefixTokens;

int prefix_tokens_open(PrefixTokens *tokens, Error *error);
void prefix_tokens_close(PrefixTokens *tokens); /* closing twice is fine */

/* Hashes what is new in these tokens: ids and keys are there for n_tokens at least. False out of memory. */
bool prefix_tokens_set(PrefixTokens *tokens, const char *identity, const int32_t *ids, size_t n_tokens);

/* The key of something of this kind that a beginning of tokens has, at a place. */
PrefixKey prefix_key_of(int kind, const PrefixKey *tokens, const uint64_t *place, size_t n_place);

#endif
