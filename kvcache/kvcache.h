/* Storage of keys and values: for each layer and KV head, FP16 rows in order of position. Keys are stored after RoPE at
 * their absolute positions.
 *
 * The cache does not allocate: the backend gives it memory of kvcache_bytes(), so that it may live on a device. */
#ifndef STOWKV_KVCACHE_H
#define STOWKV_KVCACHE_H

#include "model/base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct KvShape {
    size_t n_layers, n_kv_heads, head_dim;
    size_t n_ctx; /* capacity in tokens */
} KvShape;

/* A run of tokens that attention reads in one encoding. */
typedef struct KvSpan {
    const uint16_t *keys;   /* (n_tokens, head_dim) FP16 */
    const uint16_t *values; /* (n_tokens, head_dim) FP16 */
    size_t n_tokens;
} KvSpan;

#define KV_MAX_SPANS 1

typedef struct KvCache {
    KvShape shape;
    uint16_t *keys, *values; /* (n_layers, n_kv_heads, n_ctx, head_dim), not owned */
    size_t n_tokens;         /* appended to every layer */
    size_t bytes_read;       /* by attention, counted where it reads: proof that this cache was used */
} KvCache;

/* Bytes of a cache of this shape; an error where they do not fit into the address space. */
int kvcache_bytes(const KvShape *shape, size_t *out, Error *error);

void kvcache_init(KvCache *cache, const KvShape *shape, void *memory);

/* Stores `n_tokens` tokens from `position` on in one layer. Finite values beyond FP16's range are stored as its largest
 * finite value, so that an outlier does not become an infinity that poisons every later token.
 * keys, values: (n_tokens, n_kv_heads, head_dim) F32. */
void kvcache_append(KvCache *cache, size_t layer, size_t position, size_t n_tokens, const float *keys,
                    const float *values);

/* What a query at `position` sees in one layer and KV head: fills `spans` and returns how many. */
size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]);

/* Bytes that attention moves when it reads `span`. */
size_t kvcache_span_bytes(const KvCache *cache, const KvSpan *span);

#endif
