/* What was computed for the tokens of a prefix, kept for whoever comes with the same tokens: states of caches, as they
 * are stored, or keys and values as tensors of any origin.
 *
 *     PrefixStoreOptions options = {.folder = "prefixes", .disk_bytes = 1 << 30, .memory_bytes = 1 << 28,
 *                                   .ttl_ms = 3600000};
 *     PrefixCache *prefixes;
 *     if (prefix_cache_open(&prefixes, &options, &error) < 0) …
 *
 *     // a cache: the longest prefix of `tokens` that is there; the others go through the model
 *     n = prefix_cache_restore(prefixes, identity, &cache, &memory, tokens, n_tokens, logits, n_vocab, &restored);
 *     prefix_cache_save(prefixes, identity, &cache, &memory, tokens, NULL, 0, seconds);
 *
 *     // tensors, in 4 bits unless the shape says otherwise
 *     PrefixTensors shape = {PREFIX_TENSORS_DEFAULTS, .n_tokens = 700, .n_kv_heads = 8, .head_dim = 128};
 *     prefix_cache_put_layer(prefixes, "my model", tokens, &shape, layer, keys, values);
 *     if (prefix_cache_get_layer(prefixes, "my model", tokens, &shape, layer, keys, values)) …
 *
 * A prefix is found by a hash of the identity and of its tokens, and is one once both are the same and all checksums
 * hold. Anything else is a miss with a reason. States share what they have in common: the pieces of snapshot.h are
 * entries of their own. The store keeps a state as long as prefix/store.h says. Not for several threads. */
#ifndef STOWKV_PREFIX_CACHE_H
#define STOWKV_PREFIX_CACHE_H

#include "kvcache/prefix/store.h"
#include "kvcache/snapshot.h"

typedef struct PrefixCache PrefixCache;

typedef enum PrefixMiss {
    MISS_ABSENT,   /* of these tokens nothing is stored, or no longer */
    MISS_IDENTITY, /* what is stored is another model's or policy's */
    MISS_EXPIRED,
    MISS_EVICTED, /* parts of it */
    MISS_DAMAGED,
    MISS_TRUNCATED,
    MISS_OTHER_TOKENS, /* two prefixes have the same hash */
    MISS_COUNT
} PrefixMiss;

typedef struct PrefixCacheStats {
    size_t n_hits, n_misses;   /* of prefix_cache_restore() and prefix_cache_get_layer() */
    size_t misses[MISS_COUNT]; /* by reason */
    size_t tokens_restored;
    size_t bytes_restored;
    double seconds_restoring;
    double seconds_saved; /* what computing the restored tokens took once, less the time to restore them */
    size_t bytes_plain;   /* what was put would take in FP16, each prefix for itself */
    size_t bytes_stored;  /* what it took */
    PrefixStoreStats store;
} PrefixCacheStats;

int prefix_cache_open(PrefixCache **out, const PrefixStoreOptions *options, Error *error);
void prefix_cache_close(PrefixCache *prefixes); /* NULL is fine */
void prefix_cache_stats(PrefixCache *prefixes, PrefixCacheStats *out);
const char *prefix_miss_name(PrefixMiss reason); /* "expired" */

/* ---- States of caches. `identity`: kv_state_identity() */

typedef struct PrefixRestored {
    size_t n_tokens;  /* 0: a miss */
    bool has_logits;  /* of the last token; n_tokens may be all there are, then */
    double seconds;   /* that computing them took once */
    PrefixMiss miss;  /* of a miss, or of longer prefixes that did not come */
    char reason[256]; /* the same for people, in words */
} PrefixRestored;

/* Puts the longest prefix of the tokens that is there into the cache, which forgets what it held, and returns how many
 * tokens it then holds. All of them only where logits come along; at most n_tokens - 1 otherwise: the last token must
 * go through the model for its logits. */
size_t prefix_cache_restore(PrefixCache *prefixes, const char *identity, KvCache *cache, const KvMemory *memory,
                            const int32_t *tokens, size_t n_tokens,
                            float *logits, // (n_logits)
                            size_t n_logits, PrefixRestored *out);

/* Stores the cache's state, of cache->n_tokens tokens. `logits` (n_logits) of the last token, or NULL; `seconds`: what
 * computing all of it took. */
void prefix_cache_save(PrefixCache *prefixes, const char *identity, const KvCache *cache, const KvMemory *memory,
                       const int32_t *tokens, const float *logits, size_t n_logits, double seconds);

/* ---- Tensors. `name` is the caller's: another model has another name. */

typedef struct PrefixTensors {
    size_t n_tokens, n_kv_heads, head_dim;
    KvCodecId k, v;
    bool rotated; /* Hadamard, where rows are a power of two long */
} PrefixTensors;

/* 4 bits, scales quantized too: PrefixTensors shape = {PREFIX_TENSORS_DEFAULTS, .n_tokens = 700, …}. */
#define PREFIX_TENSORS_DEFAULTS .k = KV_NF4, .v = KV_NF4, .rotated = false

/* Errors: a shape that the codec does not take, no memory. What the store does not take is no error. */
int prefix_cache_put_layer(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                           size_t layer,
                           const float *keys,   // (n_tokens, n_kv_heads, head_dim)
                           const float *values, // (n_tokens, n_kv_heads, head_dim)
                           Error *error);

/* Whether it was there; then keys and values are what the codecs made of them. */
bool prefix_cache_get_layer(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                            size_t layer,
                            float *keys,    // (n_tokens, n_kv_heads, head_dim)
                            float *values); // (n_tokens, n_kv_heads, head_dim)

/* The same for layers 0 to n_layers - 1, one behind the other; all of them are there, or none is given. */
int prefix_cache_put_layers(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                            size_t n_layers, const float *keys, const float *values, Error *error);
bool prefix_cache_get_layers(PrefixCache *prefixes, const char *name, const int32_t *tokens, const PrefixTensors *shape,
                             size_t n_layers, float *keys, float *values);

#endif
