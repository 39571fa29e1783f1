/* Where the cache keeps each token: arithmetic on a shape, a policy and the size of stored records. Places are offsets
 * in bytes into one piece of memory, on the host or on a device. The storage on the host (kvcache.h), the byte ledger
 * and --plan_memory ask here.
 *
 *     KvCacheLayout layout;
 *     if (kvcache_layout_open(&layout, &shape, &policy, &KV_PLAIN_RECORDS, &error) < 0) …
 *     memory = …                    // layout.kept_bytes + layout.working_bytes, aligned to KV_ALIGNMENT
 *     kvcache_layout_close(&layout);
 *
 * A layer has a store for its sink and one for each tier. Tokens come into them by way of the batch, a store of
 * n_batch tokens that all layers share. plan.h alone says which token is in which tier, places.h in which slot. */
#ifndef STOWKV_LAYOUT_H
#define STOWKV_LAYOUT_H

#include "base/layer_set.h"
#include "kvcache/codec/record_form.h"
#include "kvcache/plan.h"

#define KV_ALIGNMENT 64 /* bytes: every array begins at a multiple */

typedef struct KvShape {
    size_t n_layers, n_kv_heads;
    size_t head_dim; /* of the model; rows in the cache may be longer, see KvCacheLayout.row_dim */
    size_t n_ctx;    /* capacity in tokens, unless the policy streams */
    size_t n_batch;  /* the largest batch */
    LayerSet local;  /* layers whose queries see the last `lookback` tokens alone, themselves among them */
    size_t lookback; /* 0: no layer does */
} KvShape;

/* How keys, or values, of a tier are encoded. */
typedef struct KvEncoding {
    KvCodecId codec;
    KvGroup group;       /* its shape, the same for keys and values, and whether it is rotated */
    size_t record_bytes; /* of a group in its stored form */
} KvEncoding;

/* Slots in memory: (n_kv_heads, n_slots, slot_bytes) */
typedef struct KvArray {
    size_t offset; /* in bytes, of the first KV head's first slot */
    size_t n_slots, slot_bytes;
} KvArray;

static HOST_DEVICE inline size_t kv_array_at(const KvArray *array, size_t kv_head, size_t slot) {
    return array->offset + (kv_head * array->n_slots + slot) * array->slot_bytes;
}

/* Where a layer keeps its sink, or a tier. The sink and the first tier have a slot for each token, (row_dim) in FP16,
 * the oldest first. The other tiers are rings of records: group g is in slot g mod n_slots. */
typedef struct KvStore {
    KvEncoding side[KV_SIDES];
    KvArray array[KV_SIDES]; /* with the same number of slots */
    size_t slot_tokens;      /* 1, or a group */
    size_t bytes;            /* of both arrays, padding included */
} KvStore;

/* Indices of a layer's stores and of their counters: the sink, then tier after tier. */
#define KV_SINK          0
#define KV_TIER(tier)    ((tier) + 1)
#define KV_MAX_STORES    KV_TIER(KV_MAX_TIERS)
#define KV_FIRST_ENCODED KV_TIER(1)
#define KV_MOMENTS       KV_MAX_STORES /* in a list of stores: none of them, but the layer's moments */

typedef struct KvLayerLayout {
    size_t rule; /* index into KvPolicy.rules */
    bool local;  /* its policy is the rule's within the lookback */
    size_t n_stores;
    KvStore stores[KV_MAX_STORES];
    /* Of queries, a slot a KV head (codec/query_moments.h); without slots where keys are rounded without them. */
    KvArray moments, waiting;
    size_t moments_bytes; /* of both */
} KvLayerLayout;

typedef struct KvCacheLayout {
    KvShape shape;
    KvPolicy policy;
    KvLayerPolicy within[KV_MAX_RULES]; /* the rules' policies, for local layers */
    size_t row_dim;           /* elements of each stored row: kv_policy_row_dim(); those from head_dim on are padding */
    const KvRecordForm *form; /* of encoded tiers */
    KvLayerLayout *layers;    /* (n_layers), owned */
    KvArray batch[KV_SIDES];  /* of one layer; a slot for each token, in FP16 */
    KvArray scratch;          /* two slots of a group in F32 */
    KvArray aware;            /* a slot for kvcache_append(): the moments' factor, and scratch of the encoder */
    size_t kept_bytes;        /* of all stores and moments */
    size_t working_bytes;     /* behind them: the batch and scratch */
    bool streams;             /* tokens may come for ever */
} KvCacheLayout;

/* The policy, which is copied, must have passed kv_policy_check(); `form` is not copied. Errors: sizes beyond a size_t,
 * no memory. */
int kvcache_layout_open(KvCacheLayout *layout, const KvShape *shape, const KvPolicy *policy, const KvRecordForm *form,
                        Error *error);
void kvcache_layout_close(KvCacheLayout *layout); /* closing twice is fine */

/* The policy of the layers that a rule holds for: of the local ones, or of the others. */
static HOST_DEVICE inline const KvLayerPolicy *kvcache_rule_policy(const KvCacheLayout *layout, size_t rule,
                                                                   bool local) {
    return local ? &layout->within[rule] : &layout->policy.rules[rule].policy;
}

static HOST_DEVICE inline const KvLayerPolicy *kvcache_layer_policy(const KvCacheLayout *layout, size_t layer) {
    const KvLayerLayout *l = &layout->layers[layer];
    return kvcache_rule_policy(layout, l->rule, l->local);
}

/* Whether keys in this codec are rounded with the queries' moments. */
static inline bool kvcache_rounds_aware(const KvCacheLayout *layout, KvCodecId codec) {
    return layout->form->takes_queries && kv_policy_rounds_aware(&layout->policy, codec);
}

/* Whether values in this codec are fitted. */
static inline bool kvcache_fits_values(const KvCacheLayout *layout, KvCodecId codec) {
    return layout->form->fits_values && kv_policy_fits_values(&layout->policy, codec);
}

/* The plan of a layer once n_tokens have come. */
static HOST_DEVICE inline KvPlan kvcache_layer_plan(const KvCacheLayout *layout, size_t layer, size_t n_tokens) {
    return kv_plan(kvcache_layer_policy(layout, layer), layout->policy.group, n_tokens);
}

/* Tokens that have entered a store so far, and those that it holds. */
static HOST_DEVICE inline size_t kv_store_entered(const KvPlan *plan, size_t store) {
    return store == KV_SINK ? plan->n_sink : plan->entered[store - KV_TIER(0)];
}

static HOST_DEVICE inline size_t kv_store_held(const KvPlan *plan, size_t store) {
    return store == KV_SINK ? plan->n_sink : kv_plan_held(plan, store - KV_TIER(0));
}

/* Tokens of a store that a query reads: all but the slots, tokens or whole groups, of which it sees nothing. */
static HOST_DEVICE inline size_t kv_store_read(const KvLayerPolicy *policy, const KvPlan *plan, size_t store,
                                               size_t slot_tokens) {
    size_t hidden = kv_plan_hidden(policy, plan), held = kv_store_held(plan, store);
    size_t older = store == KV_SINK ? 0 : plan->n_sink + plan->entered[store] - kv_plan_dropped(plan); /* held */
    size_t unseen = hidden <= older ? 0 : hidden - older < held ? hidden - older : held;
    return held - unseen / slot_tokens * slot_tokens;
}

/* The slot of a group of an encoded tier; groups are counted from the first that entered it. */
static HOST_DEVICE inline size_t kv_store_slot(const KvStore *store, size_t group) {
    return group % store->array[KV_KEYS].n_slots;
}

#endif
