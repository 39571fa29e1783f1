/* Adding up the layers of a cache by rule and tier; see ledger.h. */
#include "kvcache/ledger.h"

#include <stdio.h>

static KvLedgerRow *find_row(const KvCache *cache, KvLedger *ledger, const KvLayerPolicy *policy, size_t row) {
    size_t rule = 0;
    while (&cache->policy.rules[rule].policy != policy)
        rule++;
    for (size_t i = 0; i < ledger->n_rows; i++)
        if (ledger->rows[i].rule == rule && ledger->rows[i].row == row)
            return &ledger->rows[i];
    KvLedgerRow *added = &ledger->rows[ledger->n_rows++];
    *added = (KvLedgerRow){.rule = rule, .row = row, .k = KV_F16, .v = KV_F16};
    if (row > 0) {
        added->k = policy->tiers[row - 1].k;
        added->v = policy->tiers[row - 1].v;
    }
    return added;
}

/* Bytes of a group of one KV head; the sink and the first tier hold single tokens, which cost their share of one. */
static size_t group_bytes(const KvCache *cache, const KvLayer *layer, size_t row) {
    if (row <= 1)
        return cache->policy.group * cache->shape.head_dim * 2 * sizeof(uint16_t);
    const KvEncoding *side = layer->tiers[row - 1].side;
    return side[KV_KEYS].record_bytes + side[KV_VALUES].record_bytes;
}

static void add_layer(const KvCache *cache, const KvLayer *layer, size_t n_tokens, KvLedger *ledger) {
    KvPlan plan = kv_plan(layer->policy, cache->policy.group, n_tokens);
    size_t n_kv_heads = cache->shape.n_kv_heads, group = cache->policy.group;
    for (size_t row = layer->policy->sink == 0; row <= plan.n_tiers; row++) { /* without a sink, no row for it */
        KvLedgerRow *r = find_row(cache, ledger, layer->policy, row);
        size_t bytes = group_bytes(cache, layer, row);
        r->n_layers++;
        r->bytes += layer->row_bytes[row];
        r->tokens = row == 0 ? plan.n_sink : kv_plan_held(&plan, row - 1);
        r->bytes_held += r->tokens * bytes / group * n_kv_heads;
        if (row > 1) {
            r->rotated_k = layer->tiers[row - 1].side[KV_KEYS].group.rotated;
            r->rotated_v = layer->tiers[row - 1].side[KV_VALUES].group.rotated;
            if (kv_policy_rotates(&cache->policy, KV_KEYS, r->k, 64) != r->rotated_k ||
                kv_policy_rotates(&cache->policy, KV_VALUES, r->v, 64) != r->rotated_v)
                ledger->unrotatable = cache->shape.head_dim;
        }
        r->bits = 8.0 * (double)bytes / (double)(2 * group * cache->shape.head_dim);
        ledger->bytes += layer->row_bytes[row];
    }
}

void kv_ledger_at(const KvCache *cache, size_t n_tokens, KvLedger *out) {
    const KvShape *shape = &cache->shape;
    *out = (KvLedger){.working_bytes = cache->working_bytes};
    out->bytes_full = shape->n_layers * shape->n_kv_heads * shape->n_ctx * shape->head_dim * 2 * sizeof(uint16_t);
    for (size_t i = 0; i < shape->n_layers; i++)
        add_layer(cache, &cache->layers[i], n_tokens, out);
}

void kv_ledger(const KvCache *cache, KvLedger *out) {
    kv_ledger_at(cache, cache->n_tokens, out);
    for (size_t i = 0; i < cache->shape.n_layers; i++) {
        const KvLayer *layer = &cache->layers[i];
        for (size_t row = layer->policy->sink == 0; row <= layer->policy->n_tiers; row++) {
            KvLedgerRow *r = find_row(cache, out, layer->policy, row);
            r->bytes_read += layer->counters.bytes_read[row];
            r->tokens_encoded = layer->counters.tokens_encoded[row] / cache->shape.n_kv_heads;
        }
    }
}

void kv_ledger_predict(const KvCache *cache, size_t n_tokens, KvLedger *out) {
    KvLedger step;
    kv_ledger_at(cache, n_tokens, out);
    for (size_t n = 1; n <= n_tokens; n++) {
        kv_ledger_at(cache, n, &step);
        for (size_t i = 0; i < out->n_rows; i++)
            out->rows[i].bytes_read += step.rows[i].bytes_held;
    }
    for (size_t i = 0; i < out->n_rows; i++) {
        KvLedgerRow *r = &out->rows[i];
        KvPlan plan = kv_plan(&cache->policy.rules[r->rule].policy, cache->policy.group, n_tokens);
        r->tokens_encoded = r->row == 0 ? plan.n_sink : plan.entered[r->row - 1];
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

const char *kv_ledger_row_name(const KvLedgerRow *row, char text[KV_ROW_NAME]) {
    const char *k = kv_codec_name(kv_codec(row->k)), *v = kv_codec_name(kv_codec(row->v));
    if (row->row == 0)
        return "sink";
    if (row->k == row->v)
        return k;
    snprintf(text, KV_ROW_NAME, "%s/%s", k, v);
    return text;
}
