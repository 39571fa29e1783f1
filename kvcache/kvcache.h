/* The cache: keys and values of every token that the policy keeps, each in its tier's codec. Keys are stored after RoPE
 * at their absolute positions and never rotated again.
 *
 * A batch of tokens goes through each layer in three steps, and through the cache in one more:
 *
 *     kvcache_append(cache, layer, kv_head, n_tokens, k, v);   // for each KV head: rounds to FP16, encodes what is due
 *     n = kvcache_view(cache, layer, kv_head, position, spans);// for each query: what it sees
 *     kvcache_commit(cache, layer, kv_head, n_tokens);         // the batch becomes part of the tail
 *     kvcache_advance(cache, n_tokens);                        // once, when all layers are through
 *
 * Between append and commit both forms of a token are there: a group that leaves the window within the batch is FP16
 * for the batch's earlier queries and encoded for its later ones, so that every query sees exactly what it would see if
 * tokens came one by one.
 *
 * The cache does not allocate its storage: the backend gives it memory of kvcache_bytes(), so that it may live on a
 * device. */
#ifndef STOWKV_KVCACHE_H
#define STOWKV_KVCACHE_H

#include "kvcache/plan.h"

#include <stdatomic.h>

typedef struct KvShape {
    size_t n_layers, n_kv_heads, head_dim;
    size_t n_ctx;   /* capacity in tokens, unless the policy streams */
    size_t n_batch; /* the largest batch */
} KvShape;

/* How keys, or values, of a tier are encoded. */
typedef struct KvEncoding {
    const KvCodec *codec;
    KvGroup group;       /* its shape, the same for keys and values, and whether it is rotated */
    size_t record_bytes; /* of a group */
} KvEncoding;

/* A run of tokens that attention reads in one encoding. */
typedef struct KvSpan {
    KvEncoding side[KV_SIDES];
    const uint8_t *records[KV_SIDES]; /* of whole groups, woven; FP16 spans: rows (n_tokens, head_dim) */
    size_t n_tokens;                  /* FP16: any number; else whole groups */
    bool shifted;                     /* seen from position - (tokens dropped): the query must be rotated back */
    size_t row;                       /* of the layer's counters: 0 is the sink, t + 1 is tier t */
} KvSpan;

/* Sink, two runs for each encoded tier (a ring), the first tier; the sink and the first tier may continue in the batch.
 */
#define KV_MAX_SPANS (2 + 2 * (KV_MAX_TIERS - 1) + 2)
#define KV_MAX_ROWS  (KV_MAX_TIERS + 1)

/* An encoded tier of a layer: for each KV head a ring of groups; group g is in slot g mod n_slots. */
typedef struct KvTierStore {
    KvEncoding side[KV_SIDES];
    size_t n_slots;
    uint8_t *records[KV_SIDES]; /* (n_kv_heads, n_slots, record_bytes) */
} KvTierStore;

/* Proof of what was read and encoded, counted where it happens. */
typedef struct KvCounters {
    atomic_size_t bytes_read[KV_MAX_ROWS];     /* by attention, over all KV heads */
    atomic_size_t tokens_encoded[KV_MAX_ROWS]; /* times KV heads */
} KvCounters;

typedef struct KvLayer {
    const KvLayerPolicy *policy;
    size_t sink_slots, tail_slots;   /* tokens */
    uint16_t *sink[KV_SIDES];        /* (n_kv_heads, sink_slots, head_dim) */
    uint16_t *tail[KV_SIDES];        /* (n_kv_heads, tail_slots, head_dim) tier 0, oldest first */
    KvTierStore tiers[KV_MAX_TIERS]; /* from 1 on */
    size_t row_bytes[KV_MAX_ROWS];   /* storage of the sink (0) and of tier t (t + 1), padding included */
    KvCounters counters;
} KvLayer;

typedef struct KvCache {
    KvShape shape;
    KvPolicy policy;
    KvLayer *layers;           /* (n_layers), owned */
    uint16_t *fresh[KV_SIDES]; /* (n_kv_heads, n_batch, head_dim) the batch in one layer */
    float *scratch;            /* (n_kv_heads, 2, group, head_dim) */
    size_t kept_bytes;         /* storage of tokens */
    size_t working_bytes;      /* storage of the batch under way, shared by all layers */
    bool streams;              /* tokens may come for ever */
    SimdLevel level;           /* that encodes: scalar, until whoever opened it chooses another */
    size_t n_tokens;           /* that have gone through all layers */
} KvCache;

/* Lays the cache out and measures it. The policy must have passed kv_policy_check(). The cache must stay where it is:
 * its layers point to its policy. */
int kvcache_open(KvCache *cache, const KvShape *shape, const KvPolicy *policy, Error *error);

/* Gives it storage: kept_bytes + working_bytes, zeroed, aligned to 64. Without it a cache can be measured, not used. */
void kvcache_set_memory(KvCache *cache, void *memory);
void kvcache_close(KvCache *cache); /* not the memory; closing twice is fine */

/* Touches the pages of a KV head, in all layers, that tokens [begin, end) will be the first to use: they lie near the
 * calling thread then (cpu_nodes.h). Nothing in them changes. Different threads may touch different KV heads. */
void kvcache_touch(KvCache *cache, size_t kv_head, size_t begin, size_t end);

/* Forgets all tokens and counters. */
void kvcache_clear(KvCache *cache);

/* Whether n more tokens may come: always, where the policy streams; else up to n_ctx. */
bool kvcache_has_room(const KvCache *cache, size_t n_tokens);

/* Takes in a batch in one layer and KV head, and encodes every group that leaves a tier within it. Finite values beyond
 * FP16's range are stored as its largest finite value, so that an outlier does not become an infinity that poisons
 * every later token. Different KV heads may be appended by different threads. */
void kvcache_append(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens,
                    const float *keys,    // (n_tokens, n_kv_heads, head_dim) F32
                    const float *values); // (n_tokens, n_kv_heads, head_dim) F32

/* What a query at `position` of the batch sees, oldest tokens first: fills `spans` and returns how many. */
size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]);

/* Tokens that a query at `position` no longer sees in this layer. */
size_t kvcache_dropped(const KvCache *cache, size_t layer, size_t position);

void kvcache_commit(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens);
void kvcache_advance(KvCache *cache, size_t n_tokens);

/* Counts what attention moved when it read `spans`. */
void kvcache_count_read(KvCache *cache, size_t layer, const KvSpan *spans, size_t n_spans);

#endif
