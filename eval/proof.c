/* See proof.h. */
#include "eval/proof.h"

bool policy_changes_query(const KvCache *cache, size_t n_tokens) {
    for (size_t layer = 0; layer < cache->shape.n_layers; layer++) {
        KvPlan plan = kv_plan(cache->layers[layer].policy, cache->policy.group, n_tokens);
        if (plan.entered[1] > 0)
            return true;
    }
    return false;
}

/* The ledger shows what one layer holds for all that share a rule, so here every layer is asked, to the KV head. */
static int check_entered(const KvCache *cache, size_t layer, size_t n_tokens, Error *error) {
    const KvLayer *l = &cache->layers[layer];
    KvPlan plan = kv_plan(l->policy, cache->policy.group, n_tokens);
    for (size_t row = 0; row <= plan.n_tiers; row++) {
        size_t expected = cache->shape.n_kv_heads * (row == 0 ? plan.n_sink : plan.entered[row - 1]);
        size_t entered = l->counters.tokens_encoded[row];
        if (entered != expected)
            return error_set(error, ERROR_FORMAT,
                             "layer %zu: %zu tokens of all KV heads entered the %s, where the plan says %zu; this is a "
                             "bug, and no figure of this run can be trusted",
                             layer, entered, row == 0 ? "sink" : kv_codec_name(kv_codec(l->policy->tiers[row - 1].k)),
                             expected);
    }
    return 0;
}

int proof_check(const KvCache *cache, size_t n_tokens, Error *error) {
    KvLedger measured, predicted;
    char name[KV_ROW_NAME];
    kv_ledger(cache, &measured);
    kv_ledger_predict(cache, n_tokens, &predicted);
    for (size_t i = 0; i < measured.n_rows; i++) {
        const KvLedgerRow *m = &measured.rows[i], *p = &predicted.rows[i];
        if (m->bytes_read != p->bytes_read)
            return error_set(error, ERROR_FORMAT,
                             "tier %s: attention read %zu bytes, where the plan says %zu; this is a bug, and no figure "
                             "of this run can be trusted",
                             kv_ledger_row_name(m, name), m->bytes_read, p->bytes_read);
    }
    for (size_t layer = 0; layer < cache->shape.n_layers; layer++)
        if (check_entered(cache, layer, n_tokens, error) < 0)
            return error->code;
    return 0;
}
