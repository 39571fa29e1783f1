/* The byte ledger: what each tier of a cache takes and holds, scales included, and what its counters must be
 * after use. All of it follows from the layout that the storage has too; no cache is needed.
 *
 *     kv_ledger_at(&layout, n_tokens, &ledger);
 *
 * kv_ledger() (kvcache.h) adds what was counted. */
#ifndef STOWKV_LEDGER_H
#define STOWKV_LEDGER_H

#include "kvcache/layout.h"

/* The sink or one tier, of the layers that share a rule of the policy and look back alike. */
typedef struct KvLedgerRow {
    size_t rule;     /* index into KvPolicy.rules */
    bool local;      /* of layers that look back on `lookback` tokens alone */
    size_t lookback; /* 0: on all */
    size_t store;    /* KV_SINK, KV_TIER(t) */
    KvCodecId k, v;
    size_t n_layers;
    size_t bytes;          /* allocated, over the rule's layers */
    size_t tokens;         /* held now, in each of those layers */
    size_t bytes_held;     /* by those tokens, over the rule's layers */
    size_t bytes_next;     /* of them, what the newest token's query reads: less where its layers look back so far */
    size_t bytes_read;     /* by attention so far */
    size_t tokens_encoded; /* that have entered so far, in each of those layers */
    double bits;           /* an element, scales counted */
    bool rotated_k, rotated_v;
    bool aware_k;  /* keys are rounded with an eye to the queries */
    bool fitted_v; /* values to what is added up of them */
} KvLedgerRow;

#define KV_LEDGER_ROWS (2 * KV_MAX_RULES * KV_MAX_STORES)

typedef struct KvLedger {
    KvLedgerRow rows[KV_LEDGER_ROWS];
    size_t n_rows;
    size_t bytes;         /* of all rows and moments: what the cache takes */
    size_t moments_bytes; /* of what is kept of queries, to round keys with; 0: to nearest */
    size_t working_bytes; /* of the batch under way */
    size_t bytes_full;    /* that an FP16 cache of n_ctx tokens takes */
    size_t head_dim;      /* of the layout */
    size_t row_dim;       /* likewise */
    size_t unrotatable;   /* row_dim, where it is no power of two and codecs would be rotated otherwise; else 0 */
} KvLedger;

/* Of a cache that holds n_tokens; counters are 0. */
void kv_ledger_at(const KvCacheLayout *layout, size_t n_tokens, KvLedger *out);

/* What the ledger must say of a cache that was empty, once n_tokens have gone through it and each has attended once:
 * the plan's arithmetic, summed over positions. Counters are checked against it. */
void kv_ledger_predict(const KvCacheLayout *layout, size_t n_tokens, KvLedger *out);

/* Adds the counters of `run` to those of `sum`, of the same cache or of one laid out alike; what is held is `run`'s. */
void kv_ledger_add(KvLedger *sum, const KvLedger *run);

/* For people: rows of the same store, codecs and tokens are put together, whichever rules of the policy they are of. The
 * first one's rule stands for all. */
void kv_ledger_fold(KvLedger *ledger);

/* The name of a row: "sink", "f16", "int8/q4_0", of local layers "f16 (512)"; in `text` or a constant. */
#define KV_ROW_NAME 48
const char *kv_ledger_row_name(const KvLedgerRow *row, char text[KV_ROW_NAME]);

#endif
