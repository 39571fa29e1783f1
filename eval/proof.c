/* See proof.h. */
#include "eval/proof.h"

#include "kvcache/policy_text.h"

bool policy_changes_query(const KvCache *cache, size_t n_tokens) {
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++) {
        const KvLayerPolicy *policy = &cache->layout.policy.rules[cache->layout.layers[layer].rule].policy;
        KvPlan plan = kvcache_layer_plan(&cache->layout, layer, n_tokens);
        bool in_sight = !cache->layout.layers[layer].local || policy->tiers[0].capacity < cache->layout.shape.lookback;
        if (plan.entered[1] > 0 && in_sight)
            return true;
    }
    return false;
}

/* A row of the ledger stands for all layers that share a rule, so each layer's own counters are checked here. */
static int check_entered(const KvCache *cache, size_t layer, size_t n_before, size_t n_tokens, Error *error) {
    const KvLayerLayout *l = &cache->layout.layers[layer];
    KvPlan before = kvcache_layer_plan(&cache->layout, layer, n_before);
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, n_tokens);
    for (size_t s = 0; s < l->n_stores; s++) {
        size_t expected = cache->layout.shape.n_kv_heads * (kv_store_entered(&plan, s) - kv_store_entered(&before, s));
        size_t entered = kvcache_counters(cache, layer)->tokens_encoded[s];
        if (entered != expected)
            return error_set(error, ERROR_FORMAT,
                             "layer %zu: %zu tokens of all KV heads entered the %s, where the plan says %zu; this is a "
                             "bug, and no figure of this run can be trusted",
                             layer, entered,
                             s == KV_SINK ? "sink" : kv_codec_name(kv_codec(l->stores[s].side[KV_KEYS].codec)),
                             expected);
    }
    return 0;
}

/* What [n_before, n_tokens) read, and what entered as they came. */
static int check(const KvCache *cache, size_t n_before, size_t n_tokens, Error *error) {
    KvLedger measured, before, predicted;
    char name[KV_ROW_NAME];
    kv_ledger(cache, &measured);
    kv_ledger_predict(&cache->layout, n_before, &before);
    kv_ledger_predict(&cache->layout, n_tokens, &predicted);
    for (size_t i = 0; i < measured.n_rows; i++) {
        size_t read = measured.rows[i].bytes_read, expected = predicted.rows[i].bytes_read - before.rows[i].bytes_read;
        if (read != expected)
            return error_set(error, ERROR_FORMAT,
                             "tier %s: attention read %zu bytes, where the plan says %zu; this is a bug, and no figure "
                             "of this run can be trusted",
                             kv_ledger_row_name(&measured.rows[i], name), read, expected);
    }
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++)
        if (check_entered(cache, layer, n_before, n_tokens, error) < 0)
            return error->code;
    return 0;
}

int proof_check(const KvCache *cache, size_t n_tokens, Error *error) {
    return check(cache, 0, n_tokens, error);
}

int proof_check_behind(const KvCache *cache, size_t n_before, Error *error) {
    return check(cache, n_before, cache->n_tokens, error);
}

void proof_print(const KvLedger *ledger, const KvPolicy *policy, bool heading, FILE *stream) {
    char text[KV_POLICY_TEXT], name[KV_ROW_NAME];
    kv_policy_print(policy, text, sizeof text);
    if (heading)
        fprintf(stream, "\n%-16s %7s %12s %14s %18s  %s\n", "cache tier", "bits", "tokens held", "tokens entered",
                "bytes read", "policy");
    KvLedger folded = *ledger;
    kv_ledger_fold(&folded);
    for (size_t r = 0; r < folded.n_rows; r++) {
        const KvLedgerRow *row = &folded.rows[r];
        fprintf(stream, "%-16s %7.3f %12zu %14zu %18zu  %s\n", kv_ledger_row_name(row, name), row->bits, row->tokens,
                row->tokens_encoded, row->bytes_read, text);
    }
}
