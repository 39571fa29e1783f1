/* Storage and movement of tokens between tiers; see kvcache.h. places.h alone decides where a token is. */
#include "kvcache/kvcache.h"

#include "base/checked.h"
#include "base/half.h"
#include "base/machine/pages.h"
#include "kvcache/codec/query_moments.h"

#include <stdlib.h>

int kvcache_open(KvCache *cache, const KvShape *shape, const KvPolicy *policy, const KvRecordForm *form, Error *error) {
    *cache = (KvCache){0};
    if (kvcache_layout_open(&cache->layout, shape, policy, form, error) < 0)
        return error->code;
    size_t size_bytes = sizeof *cache->counters + shape->n_kv_heads * sizeof *cache->n_waiting;
    cache->counters = calloc(shape->n_layers, sizeof *cache->counters);
    cache->n_waiting = calloc(shape->n_layers, shape->n_kv_heads * sizeof *cache->n_waiting);
    if (cache->counters != NULL && cache->n_waiting != NULL)
        return 0;
    kvcache_close(cache);
    return error_memory(error, "the cache's counters", shape->n_layers * size_bytes);
}

void kvcache_set_memory(KvCache *cache, void *memory) {
    cache->memory = memory;
}

void kvcache_close(KvCache *cache) {
    kvcache_layout_close(&cache->layout);
    free(cache->counters);
    free(cache->n_waiting);
    *cache = (KvCache){0};
}

const KvCounters *kvcache_counters(const KvCache *cache, size_t layer) {
    if (cache->collect != NULL)
        cache->collect(cache);
    return &cache->counters[layer];
}

static const KvStore *store_of(const KvCache *cache, size_t layer, size_t store) {
    return &cache->layout.layers[layer].stores[store];
}

static uint8_t *slot_at(const KvCache *cache, const KvArray *array, size_t kv_head, size_t slot) {
    return cache->memory + kv_array_at(array, kv_head, slot);
}

static uint16_t *rows_at(const KvCache *cache, const KvArray *array, size_t kv_head, size_t slot) {
    return (uint16_t *)(void *)slot_at(cache, array, kv_head, slot);
}

/* Whether the layer's keys are rounded with an eye to the queries. */
static bool is_aware(const KvCache *cache, size_t layer) {
    return cache->layout.layers[layer].moments.n_slots > 0;
}

static KvMoments moments_of(const KvCache *cache, size_t layer, size_t kv_head) {
    const KvLayerLayout *l = &cache->layout.layers[layer];
    return (KvMoments){.sums = (float *)(void *)slot_at(cache, &l->moments, kv_head, 0),
                       .waiting = (float *)(void *)slot_at(cache, &l->waiting, kv_head, 0),
                       .n_waiting = &cache->n_waiting[layer * cache->layout.shape.n_kv_heads + kv_head],
                       .head_dim = cache->layout.shape.head_dim,
                       .level = cache->level};
}

void kvcache_clear(KvCache *cache) {
    for (size_t layer = 0; layer < cache->layout.shape.n_layers && cache->memory != NULL; layer++)
        for (size_t kv_head = 0; kv_head < cache->layout.shape.n_kv_heads && is_aware(cache, layer); kv_head++)
            memset(moments_of(cache, layer, kv_head).sums, 0, cache->layout.layers[layer].moments.slot_bytes);
    kvcache_resume(cache, 0);
}

void kvcache_settle(const KvCache *cache) {
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++)
        for (size_t kv_head = 0; kv_head < cache->layout.shape.n_kv_heads && is_aware(cache, layer); kv_head++) {
            KvMoments moments = moments_of(cache, layer, kv_head);
            kv_moments_settle(&moments);
        }
}

void kvcache_resume(KvCache *cache, size_t n_tokens) {
    cache->n_tokens = n_tokens;
    if (cache->collect != NULL)
        cache->collect(cache);
    memset(cache->counters, 0, cache->layout.shape.n_layers * sizeof *cache->counters);
    memset(cache->n_waiting, 0,
           cache->layout.shape.n_layers * cache->layout.shape.n_kv_heads * sizeof *cache->n_waiting);
}

bool kvcache_has_room(const KvCache *cache, size_t n_tokens) {
    return cache->layout.streams || n_tokens <= cache->layout.shape.n_ctx - cache->n_tokens;
}

size_t kvcache_dropped(const KvCache *cache, size_t layer, size_t position) {
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, position + 1);
    return kv_plan_dropped(&plan);
}

size_t kvcache_hidden(const KvCache *cache, size_t layer, size_t position) {
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, position + 1);
    return kv_plan_hidden(kvcache_layer_policy(&cache->layout, layer), &plan);
}

size_t kvcache_shift(const KvCache *cache, size_t layer, size_t position) {
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, position + 1);
    return kv_plan_shift(kvcache_layer_policy(&cache->layout, layer), &plan);
}

/* ---- Touching */

static void touch_slots(KvCache *cache, const KvArray *array, size_t kv_head, size_t begin, size_t end) {
    size_t last = at_most(end, array->n_slots);
    if (begin < last)
        pages_touch(slot_at(cache, array, kv_head, begin), (last - begin) * array->slot_bytes);
}

/* Arrays fill from their first slot on; beyond n_slots, slots that were touched before are used again. */
static void touch_layer(KvCache *cache, size_t layer, size_t kv_head, size_t begin, size_t end) {
    KvPlan before = kvcache_layer_plan(&cache->layout, layer, begin);
    KvPlan after = kvcache_layer_plan(&cache->layout, layer, end);
    for (size_t s = 0; s < cache->layout.layers[layer].n_stores; s++) {
        const KvStore *store = store_of(cache, layer, s);
        for (KvSide side = 0; side < KV_SIDES; side++)
            touch_slots(cache, &store->array[side], kv_head, kv_store_entered(&before, s) / store->slot_tokens,
                        kv_store_entered(&after, s) / store->slot_tokens);
    }
}

void kvcache_touch(KvCache *cache, size_t kv_head, size_t begin, size_t end) {
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++)
        touch_layer(cache, layer, kv_head, begin, end);
}

/* ---- Appending */

static void encode_f16(const float *values, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint16_t half = half_from_float(values[i]), magnitude = half & 0x7fff;
        bool is_finite = (float_to_bits(values[i]) & 0x7fffffff) < 0x7f800000;
        out[i] = (uint16_t)(half - (is_finite & (magnitude == 0x7c00))); /* one below infinity: the largest value */
    }
}

/* Padding is zeros. */
static void take_batch(KvCache *cache, size_t kv_head, size_t n_tokens, KvSide side, const float *values) {
    const KvShape *shape = &cache->layout.shape;
    size_t n_padding = cache->layout.row_dim - shape->head_dim;
    for (size_t t = 0; t < n_tokens; t++) {
        uint16_t *row = rows_at(cache, &cache->layout.batch[side], kv_head, t);
        encode_f16(values + (t * shape->n_kv_heads + kv_head) * shape->head_dim, shape->head_dim, row);
        memset(row + shape->head_dim, 0, n_padding * sizeof *row);
    }
}

static uint8_t *record_at(const KvCache *cache, size_t layer, size_t store, KvSide side, size_t kv_head, size_t group) {
    const KvStore *ring = store_of(cache, layer, store);
    return slot_at(cache, &ring->array[side], kv_head, kv_store_slot(ring, group));
}

/* Group `index` of those that leave the first tier, in F32. */
static void load_rows(const KvCache *cache, size_t layer, size_t kv_head, size_t index, KvSide side, float *out) {
    const KvCacheLayout *layout = &cache->layout;
    KvRun runs[2];
    size_t group = layout->policy.group, begin = kvcache_layer_policy(layout, layer)->sink + index * group;
    size_t n = kvcache_layout_rows(layout, layer, KV_TIER(0), cache->n_tokens, begin, begin + group, runs);
    for (size_t r = 0; r < n; r++) {
        const void *rows = cache->memory + kvcache_layout_at(layout, layer, &runs[r], side, kv_head);
        const uint16_t *halves = rows;
        for (size_t i = 0; i < runs[r].n_tokens * layout->row_dim; i++)
            *out++ = half_to_float(halves[i]);
    }
}

/* Group `index` of those that leave an encoded tier, decoded and rotated back. */
static void load_record(const KvCache *cache, size_t layer, size_t kv_head, size_t store, size_t index, KvSide side,
                        float *out, uint8_t *scratch) {
    const KvEncoding *encoding = &store_of(cache, layer, store)->side[side];
    kv_stored_decode(cache->layout.form, encoding->codec, side, &encoding->group,
                     record_at(cache, layer, store, side, kv_head, index), scratch, out);
    if (encoding->group.rotated)
        kv_rotate(out, encoding->group.n_tokens, encoding->group.head_dim);
}

/* The moments' factor, in the KV head's `aware` slot, for all groups that enter tiers at one token: a policy rotates
 * the keys of all its tiers, or of none. */
typedef struct Factor {
    bool is_made, exists;
} Factor;

/* NULL where keys in this encoding are rounded to nearest. */
static float *factor_for(const KvCache *cache, size_t layer, size_t kv_head, const KvEncoding *keys, Factor *factor) {
    float *slot = (float *)(void *)slot_at(cache, &cache->layout.aware, kv_head, 0);
    if (!kvcache_rounds_aware(&cache->layout, keys->codec))
        return NULL;
    if (!factor->is_made) {
        KvMoments moments = moments_of(cache, layer, kv_head);
        kv_moments_settle(&moments);
        factor->is_made = true;
        factor->exists = kv_moments_factor(cache->level, moments.sums, cache->layout.shape.head_dim,
                                           cache->layout.row_dim, keys->group.rotated, slot);
    }
    return factor->exists ? slot : NULL;
}

/* `values` are rotated already, in place; `factor` is for keys, or NULL. */
static void encode_group(const KvCache *cache, const KvEncoding *encoding, KvSide side, float *factor,
                         const float *values, uint8_t *record) {
    const KvCodec *codec = kv_codec(encoding->codec);
    KvGroup group = encoding->group;
    group.rotated = false;
    if (factor != NULL)
        kv_codec_encode_aware(codec, cache->level, &group, factor, values, factor + group.head_dim * group.head_dim,
                              record);
    else if (side == KV_VALUES && kvcache_fits_values(&cache->layout, encoding->codec))
        kv_codec_encode_fitted(codec, cache->level, &group, values, record);
    else
        kv_codec_encode(codec, cache->level, side, &group, values, NULL, record);
}

static void encode_side(KvCache *cache, size_t layer, size_t kv_head, size_t tier, size_t index, KvSide side,
                        float *factor) {
    const KvEncoding *encoding = &store_of(cache, layer, KV_TIER(tier))->side[side];
    KvGroup group = encoding->group;
    float *values = (float *)(void *)slot_at(cache, &cache->layout.scratch, kv_head, 0);
    uint8_t *record = slot_at(cache, &cache->layout.scratch, kv_head, 1); /* never more bytes than values have */
    if (tier == 1)
        load_rows(cache, layer, kv_head, index, side, values);
    else
        load_record(cache, layer, kv_head, KV_TIER(tier - 1), index, side, values, record);
    kv_codec_pad(kv_codec(encoding->codec), &group, cache->layout.shape.head_dim, values);
    if (group.rotated)
        kv_rotate(values, group.n_tokens, group.head_dim);
    encode_group(cache, encoding, side, factor, values, record);
    cache->layout.form->store(encoding->codec, side, &encoding->group, record,
                              record_at(cache, layer, KV_TIER(tier), side, kv_head, index));
}

static void count_encoded(KvCache *cache, size_t layer, size_t store, size_t n_tokens) {
    atomic_fetch_add(&cache->counters[layer].tokens_encoded[store], n_tokens);
}

/* Encodes the groups of tokens [begin, end), numbered in the order in which they enter the tier. */
static void encode_entering(KvCache *cache, size_t layer, size_t kv_head, size_t tier, size_t begin, size_t end,
                            Factor *factor) {
    const KvEncoding *keys = &store_of(cache, layer, KV_TIER(tier))->side[KV_KEYS];
    size_t group = cache->layout.policy.group;
    for (size_t entered = begin; entered < end; entered += group) {
        encode_side(cache, layer, kv_head, tier, entered / group, KV_KEYS,
                    factor_for(cache, layer, kv_head, keys, factor));
        encode_side(cache, layer, kv_head, tier, entered / group, KV_VALUES, NULL);
        count_encoded(cache, layer, KV_TIER(tier), group);
    }
}

static void take_queries(KvCache *cache, size_t layer, size_t kv_head, size_t begin, size_t end, const KvRows *rows) {
    const KvShape *shape = &cache->layout.shape;
    size_t n_heads = rows->n_heads / shape->n_kv_heads, stride = rows->n_heads * shape->head_dim;
    KvMoments moments = moments_of(cache, layer, kv_head);
    kv_moments_take(&moments, n_heads, end - begin, stride,
                    rows->queries + begin * stride + kv_head * n_heads * shape->head_dim);
}

/* Where the step that begins at token `begin` of the batch ends: behind the token at which the next group leaves the
 * first tier, since no later query may have a say in it. All that leaves another tier leaves it then, too. */
static size_t step_end(const KvCache *cache, size_t layer, size_t begin, size_t n_tokens) {
    const KvLayerPolicy *policy = kvcache_layer_policy(&cache->layout, layer);
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, cache->n_tokens + begin);
    size_t group = cache->layout.policy.group;
    return is_aware(cache, layer)
               ? at_most(kv_plan_arrival(policy, group, 1, plan.entered[1] + group) - cache->n_tokens, n_tokens)
               : n_tokens;
}

static void encode_due(KvCache *cache, size_t layer, size_t kv_head, size_t begin, size_t end) {
    KvPlan before = kvcache_layer_plan(&cache->layout, layer, cache->n_tokens + begin);
    KvPlan after = kvcache_layer_plan(&cache->layout, layer, cache->n_tokens + end);
    Factor factor = {0};
    count_encoded(cache, layer, KV_SINK, after.n_sink - before.n_sink);
    count_encoded(cache, layer, KV_TIER(0), after.entered[0] - before.entered[0]);
    for (size_t tier = 1; tier < after.n_tiers; tier++)
        encode_entering(cache, layer, kv_head, tier, before.entered[tier], after.entered[tier], &factor);
    if (is_aware(cache, layer) && after.entered[1] > before.entered[1]) {
        KvMoments moments = moments_of(cache, layer, kv_head);
        kv_moments_fade(&moments, KV_MOMENTS_MEMORY);
    }
}

void kvcache_append(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens, const KvRows *rows) {
    take_batch(cache, kv_head, n_tokens, KV_KEYS, rows->keys);
    take_batch(cache, kv_head, n_tokens, KV_VALUES, rows->values);
    for (size_t begin = 0, end; begin < n_tokens; begin = end) {
        end = step_end(cache, layer, begin, n_tokens);
        if (is_aware(cache, layer))
            take_queries(cache, layer, kv_head, begin, end, rows);
        encode_due(cache, layer, kv_head, begin, end);
    }
}

/* ---- Views */

size_t kvcache_view(const KvCache *cache, size_t layer, size_t kv_head, size_t position, KvSpan spans[KV_MAX_SPANS]) {
    KvRun runs[KV_MAX_RUNS];
    size_t n = kvcache_layout_view(&cache->layout, layer, cache->n_tokens, position, runs);
    for (size_t i = 0; i < n; i++) {
        const KvStore *store = store_of(cache, layer, runs[i].store);
        spans[i] = (KvSpan){.n_tokens = runs[i].n_tokens, .shifted = runs[i].shifted, .store = runs[i].store};
        for (KvSide side = 0; side < KV_SIDES; side++) {
            spans[i].side[side] = store->side[side];
            spans[i].records[side] = cache->memory + kvcache_layout_at(&cache->layout, layer, &runs[i], side, kv_head);
        }
    }
    return n;
}

/* In proportion to tokens: FP16 spans need not be whole groups. */
static size_t span_bytes(const KvSpan *span, size_t n_hidden) {
    const KvEncoding *keys = &span->side[KV_KEYS], *values = &span->side[KV_VALUES];
    size_t group = keys->group.n_tokens, unseen = at_most(n_hidden, span->n_tokens);
    size_t unread = span->store < KV_FIRST_ENCODED ? unseen : unseen / group * group;
    return (span->n_tokens - unread) * (keys->record_bytes + values->record_bytes) / group;
}

void kvcache_count_read(KvCache *cache, size_t layer, const KvSpan *spans, size_t n_spans, size_t n_hidden) {
    for (size_t s = 0; s < n_spans; s++) {
        atomic_fetch_add_explicit(&cache->counters[layer].bytes_read[spans[s].store], span_bytes(&spans[s], n_hidden),
                                  memory_order_relaxed);
        n_hidden -= at_most(n_hidden, spans[s].n_tokens);
    }
}

/* ---- Committing */

static void commit_side(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens, const KvMove *move,
                        KvSide side) {
    const KvArray *sink = &store_of(cache, layer, KV_SINK)->array[side];
    const KvArray *tail = &store_of(cache, layer, KV_TIER(0))->array[side], *batch = &cache->layout.batch[side];
    memcpy(slot_at(cache, sink, kv_head, move->in_sink), slot_at(cache, batch, kv_head, 0),
           move->to_sink * sink->slot_bytes);
    if (move->n_leaving > 0)
        memmove(slot_at(cache, tail, kv_head, 0), slot_at(cache, tail, kv_head, move->n_leaving),
                move->n_staying * tail->slot_bytes);
    memcpy(slot_at(cache, tail, kv_head, move->n_staying), slot_at(cache, batch, kv_head, move->to_tail),
           (n_tokens - move->to_tail) * tail->slot_bytes);
}

void kvcache_commit(KvCache *cache, size_t layer, size_t kv_head, size_t n_tokens) {
    KvMove move = kvcache_layout_move(&cache->layout, layer, cache->n_tokens, n_tokens);
    commit_side(cache, layer, kv_head, n_tokens, &move, KV_KEYS);
    commit_side(cache, layer, kv_head, n_tokens, &move, KV_VALUES);
}

void kvcache_advance(KvCache *cache, size_t n_tokens) {
    cache->n_tokens += n_tokens;
}

/* ---- The ledger */

void kv_ledger(const KvCache *cache, KvLedger *out) {
    kv_ledger_at(&cache->layout, cache->n_tokens, out);
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++) {
        const KvCounters *counters = kvcache_counters(cache, layer);
        for (size_t i = 0; i < out->n_rows; i++) {
            KvLedgerRow *row = &out->rows[i];
            if (row->rule != cache->layout.layers[layer].rule || row->local != cache->layout.layers[layer].local)
                continue;
            row->bytes_read += counters->bytes_read[row->store];
            row->tokens_encoded = counters->tokens_encoded[row->store] / cache->layout.shape.n_kv_heads;
        }
    }
}
