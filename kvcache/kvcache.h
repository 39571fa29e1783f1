/* The cache, and its storage in the host's memory: keys and values of every token that the policy keeps, each in its
 * tier's codec. Keys are stored after RoPE at their absolute positions and never rotated again. layout.h decides where
 * each of them lies; here tokens are encoded, moved and counted.
 *
 * A batch of tokens goes through each layer in three steps, and through the cache in one more:
 *
 *     kvcache_append(cache, layer, kv_head, n_tokens, &rows);   // each KV head: rounds to FP16, encodes what is due
 *     n = kvcache_view(cache, layer, kv_head, position, spans); // each query: what it sees
 *     kvcache_commit(cache, layer, kv_head, n_tokens);          // the batch becomes part of the tail
 *     kvcache_advance(cache, n_tokens);                         // once, when all layers are through
 *
 * Between append and commit both forms of a token are there: a group that leaves the window within the batch is FP16
 * for the batch's earlier queries and encoded for its later ones, so that every query sees exactly what it would see if
 * tokens came one by one.
 *
 * The cache does not allocate its memory: the backend does, and knows where it should lie. Where that is a device,
 * the steps are the backend's own, by the same places and the same codecs. */
#ifndef STOWKV_KVCACHE_H
#define STOWKV_KVCACHE_H

#include "kvcache/ledger.h"
#include "kvcache/places.h"

#include <stdatomic.h>

/* A run of tokens that attention reads in one encoding. */
typedef struct KvSpan {
    KvEncoding side[KV_SIDES];
    const uint8_t *records[KV_SIDES]; /* of whole groups, in the cache's form; FP16 spans: rows (n_tokens, row_dim) */
    size_t n_tokens;                  /* FP16: any number; else whole groups */
    bool shifted;                     /* the query must be rotated back by the number of tokens dropped */
    size_t store;                     /* that the tokens are counted in: KV_SINK, KV_TIER(t) */
} KvSpan;

#define KV_MAX_SPANS KV_MAX_RUNS

/* What was read and encoded in a layer, by store, counted where it happens. */
typedef struct KvCounters {
    atomic_size_t bytes_read[KV_MAX_STORES];     /* by attention, summed over KV heads */
    atomic_size_t tokens_encoded[KV_MAX_STORES]; /* that entered, FP16 too, times KV heads */
} KvCounters;

typedef struct KvCache KvCache;
struct KvCache {
    KvCacheLayout layout;
    uint8_t *memory;      /* not owned; see kvcache_set_memory() */
    KvCounters *counters; /* (n_layers), owned; kvcache_counters() reads them */
    SimdLevel level;      /* of the encoders; kvcache_open() sets SIMD_SCALAR */
    size_t n_tokens;      /* that have gone through all layers */
    size_t *n_waiting;    /* (n_layers, n_kv_heads), owned: queries that are not in the moments yet */

    /* Of a cache in a device's memory, which a backend opens: what it keeps beside it, and a function that adds what
     * kernels have counted since its last call to `counters`. Else NULL. */
    void *device;
    void (*collect)(const KvCache *cache);
};

/* Lays the cache out. The policy, which is copied, must have passed kv_policy_check(); `form`, not copied, is the form
 * of records that the backend's attention reads. Errors: sizes beyond a size_t, no memory for the counters. */
int kvcache_open(KvCache *cache, const KvShape *shape, const KvPolicy *policy, const KvRecordForm *form, Error *error);

/* Bytes of the memory that kvcache_set_memory() takes. */
static inline size_t kvcache_bytes(const KvCache *cache) {
    return cache->layout.kept_bytes + cache->layout.working_bytes;
}

/* Gives it kvcache_bytes() of memory, zeroed and aligned to KV_ALIGNMENT, before the first token. */
void kvcache_set_memory(KvCache *cache, void *memory);
void kvcache_close(KvCache *cache); /* not the memory; closing twice is fine */

/* Touches those pages of a KV head, in all layers, that tokens [begin, end) will be the first to use, so that they lie
 * near the calling thread (base/machine/cpu_nodes.h). Nothing in them changes. Different threads may touch different
 * KV heads. */
void kvcache_touch(KvCache *cache, size_t kv_head, size_t begin, size_t end);

/* Forgets all tokens and counters. */
void kvcache_clear(KvCache *cache);

/* The state of n_tokens has been put into the cache's memory (snapshot.h): goes on behind them, with no counters. */
void kvcache_resume(KvCache *cache, size_t n_tokens);

/* Puts queries that wait into the moments, which are the same then wherever batches ended. No bit of what follows
 * changes. */
void kvcache_settle(const KvCache *cache);

/* Whether n_tokens more may come: always where the policy streams, else up to n_ctx in all. */
bool kvcache_has_room(const KvCache *cache, size_t n_tokens);

/* A batch as attention computes it, F32, keys and queries behind RoPE. */
typedef struct KvRows {
    const float *keys, *values; /* (n_tokens, n_kv_heads, head_dim) */
    const float *queries;       /* (n_tokens, n_heads, head_dim); NULL will do where the layout has no moments */
    size_t n_heads;
} KvRows;

/* Takes one KV head of a batch, of at most n_batch tokens, into a layer, and encodes every group that leaves a tier
 * within it: a group's keys are rounded with the queries up to the token at which it leaves. Finite values beyond
 * FP16's range are stored as its largest finite value, so that an outlier does not become an infinity that poisons
 * every later token. Different KV heads may be appended by different threads. */
void kvcache_append(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens, const KvRows *rows);

/* What the batch's query at the absolute `position` sees, oldest tokens first, behind kvcache_hidden() ones that it
 * does not: fills `spans` and returns how many. */
size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]);

/* Tokens that are gone from this layer for a query at `position`; of those in its view, the first ones that it does not
 * see, since the layer does not look back so far; and the positions by which spans that are shifted are nearer. */
size_t kvcache_dropped(const KvCache *cache, size_t layer, size_t position);
size_t kvcache_hidden(const KvCache *cache, size_t layer, size_t position);
size_t kvcache_shift(const KvCache *cache, size_t layer, size_t position);

/* After the batch's last view: moves its n_tokens into the sink and the tail. Threads: as kvcache_append(). */
void kvcache_commit(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens);

/* After all layers' commits: the batch counts as n_tokens of the cache. */
void kvcache_advance(KvCache *cache, size_t n_tokens);

/* What has been read and encoded in a layer so far. */
const KvCounters *kvcache_counters(const KvCache *cache, size_t layer);

/* Adds the bytes of `spans`, which attention has read, to the layer's counters; from any thread. Tokens and groups
 * count that are not hidden altogether by the first n_hidden. */
void kvcache_count_read(KvCache *cache, size_t layer, const KvSpan *spans, size_t n_spans, size_t n_hidden);

/* What the cache takes and holds now, and what was counted. */
void kv_ledger(const KvCache *cache, KvLedger *out);

#endif
