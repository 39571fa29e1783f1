/* Adding up the layers of a layout by rule and tier; see ledger.h. */
#include "kvcache/ledger.h"

#include <stdio.h>

static KvLedgerRow *find_row(KvLedger *ledger, const KvCacheLayout *layout, size_t layer, size_t store) {
    const KvLayerLayout *l = &layout->layers[layer];
    const KvStore *of = &l->stores[store];
    for (size_t i = 0; i < ledger->n_rows; i++)
        if (ledger->rows[i].rule == l->rule && ledger->rows[i].local == l->local && ledger->rows[i].store == store)
            return &ledger->rows[i];
    KvLedgerRow *added = &ledger->rows[ledger->n_rows++];
    *added = (KvLedgerRow){.rule = l->rule,
                           .local = l->local,
                           .lookback = l->local ? layout->shape.lookback : 0,
                           .store = store,
                           .k = of->side[KV_KEYS].codec,
                           .v = of->side[KV_VALUES].codec,
                           .rotated_k = of->side[KV_KEYS].group.rotated,
                           .rotated_v = of->side[KV_VALUES].group.rotated,
                           .aware_k = kvcache_rounds_aware(layout, of->side[KV_KEYS].codec),
                           .fitted_v = kvcache_fits_values(layout, of->side[KV_VALUES].codec)};
    return added;
}

/* Whether rows whose length is a power of two would have been rotated. */
static bool is_unrotatable(const KvPolicy *policy, const KvLedgerRow *row) {
    return kv_policy_rotates(policy, KV_KEYS, row->k, 64) != row->rotated_k ||
           kv_policy_rotates(policy, KV_VALUES, row->v, 64) != row->rotated_v;
}

static void add_layer(const KvCacheLayout *layout, size_t layer, size_t n_tokens, KvLedger *ledger) {
    const KvShape *shape = &layout->shape;
    const KvLayerLayout *l = &layout->layers[layer];
    const KvLayerPolicy *policy = kvcache_layer_policy(layout, layer);
    KvPlan plan = kvcache_layer_plan(layout, layer, n_tokens);
    ledger->moments_bytes += l->moments_bytes;
    ledger->bytes += l->moments_bytes;
    bool has_sink = policy->sink > 0; /* without one, no row for it */
    for (size_t s = has_sink ? KV_SINK : KV_TIER(0); s < l->n_stores; s++) {
        const KvStore *store = &l->stores[s];
        KvLedgerRow *row = find_row(ledger, layout, layer, s);
        size_t slot_bytes = store->array[KV_KEYS].slot_bytes + store->array[KV_VALUES].slot_bytes;
        row->n_layers++;
        row->bytes += store->bytes;
        row->tokens = kv_store_held(&plan, s);
        row->bytes_held += row->tokens / store->slot_tokens * slot_bytes * shape->n_kv_heads;
        row->bytes_next +=
            kv_store_read(policy, &plan, s, store->slot_tokens) / store->slot_tokens * slot_bytes * shape->n_kv_heads;
        row->bits = 8.0 * (double)slot_bytes / (double)(2 * store->slot_tokens * shape->head_dim);
        ledger->bytes += store->bytes;
        if (is_unrotatable(&layout->policy, row))
            ledger->unrotatable = layout->row_dim;
    }
}

void kv_ledger_at(const KvCacheLayout *layout, size_t n_tokens, KvLedger *out) {
    const KvShape *shape = &layout->shape;
    *out = (KvLedger){.working_bytes = layout->working_bytes, .head_dim = shape->head_dim, .row_dim = layout->row_dim};
    out->bytes_full = shape->n_layers * shape->n_kv_heads * shape->n_ctx * shape->head_dim * 2 * sizeof(uint16_t);
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        add_layer(layout, layer, n_tokens, out);
}

void kv_ledger_predict(const KvCacheLayout *layout, size_t n_tokens, KvLedger *out) {
    KvLedger step;
    kv_ledger_at(layout, n_tokens, out);
    for (size_t n = 1; n <= n_tokens; n++) {
        kv_ledger_at(layout, n, &step);
        for (size_t i = 0; i < out->n_rows; i++)
            out->rows[i].bytes_read += step.rows[i].bytes_next;
    }
    for (size_t i = 0; i < out->n_rows; i++) {
        KvLedgerRow *row = &out->rows[i];
        KvPlan plan = kv_plan(kvcache_rule_policy(layout, row->rule, row->local), layout->policy.group, n_tokens);
        row->tokens_encoded = kv_store_entered(&plan, row->store);
    }
}

void kv_ledger_add(KvLedger *sum, const KvLedger *run) {
    KvLedger former = *sum;
    *sum = *run;
    for (size_t i = 0; i < former.n_rows; i++) {
        sum->rows[i].bytes_read += former.rows[i].bytes_read;
        sum->rows[i].tokens_encoded += former.rows[i].tokens_encoded;
    }
}

static bool is_alike(const KvLedgerRow *a, const KvLedgerRow *b) {
    return a->store == b->store && a->k == b->k && a->v == b->v && a->local == b->local && a->tokens == b->tokens &&
           a->tokens_encoded == b->tokens_encoded && a->rotated_k == b->rotated_k && a->rotated_v == b->rotated_v &&
           a->aware_k == b->aware_k;
}

void kv_ledger_fold(KvLedger *ledger) {
    size_t n = 0;
    for (size_t i = 0; i < ledger->n_rows; i++) {
        const KvLedgerRow row = ledger->rows[i];
        size_t at = 0;
        while (at < n && !is_alike(&ledger->rows[at], &row))
            at++;
        if (at == n) {
            ledger->rows[n++] = row;
            continue;
        }
        ledger->rows[at].n_layers += row.n_layers;
        ledger->rows[at].bytes += row.bytes;
        ledger->rows[at].bytes_held += row.bytes_held;
        ledger->rows[at].bytes_next += row.bytes_next;
        ledger->rows[at].bytes_read += row.bytes_read;
    }
    ledger->n_rows = n;
}

const char *kv_ledger_row_name(const KvLedgerRow *row, char text[KV_ROW_NAME]) {
    const char *k = kv_codec_name(kv_codec(row->k)), *v = kv_codec_name(kv_codec(row->v));
    int n = row->store == KV_SINK ? snprintf(text, KV_ROW_NAME, "sink")
            : row->k == row->v    ? snprintf(text, KV_ROW_NAME, "%s", k)
                                  : snprintf(text, KV_ROW_NAME, "%s/%s", k, v);
    if (row->local)
        snprintf(text + n, KV_ROW_NAME - (size_t)n, " (%zu)", row->lookback);
    return text;
}
