/* See proof.h. */
#include "eval/proof.h"

#define POLICY_CHARS 160 /* of a policy's text in a message */

/* Whether a query that sees n_tokens has tokens behind it that left the first tier. */
static bool changes_something(const KvCache *cache, size_t n_tokens) {
    for (size_t layer = 0; layer < cache->shape.n_layers; layer++) {
        KvPlan plan = kv_plan(cache->layers[layer].policy, cache->policy.group, n_tokens);
        if (plan.entered[1] > 0)
            return true;
    }
    return false;
}

int policy_changes_something(const KvCache *cache, const PplWindows *windows, Error *error) {
    if (kv_policy_is_full(&cache->policy))
        return 0;
    size_t longest = 0;
    for (size_t i = 0; i < windows->count; i++) {
        const PplWindow *w = &windows->items[i];
        size_t n_seen = w->end - w->begin - 1; /* by the query that predicts the window's last token */
        longest = n_seen > longest ? n_seen : longest;
        if (changes_something(cache, n_seen))
            return 0;
    }
    char text[KV_POLICY_TEXT];
    kv_policy_print(&cache->policy, text, sizeof text);
    return error_set(error, ERROR_ARGUMENT,
                     "policy %.*s: a query sees at most %zu tokens, and all of them are in its sink and window (tokens "
                     "leave in groups of %zu), so this figure would be the full cache's; use a longer --context or a "
                     "smaller window",
                     POLICY_CHARS, text, longest, cache->policy.group);
}

int proof_check(const KvCache *cache, size_t n_tokens, Error *error) {
    KvLedger measured, predicted;
    char name[KV_ROW_NAME];
    kv_ledger(cache, &measured);
    kv_ledger_predict(cache, n_tokens, &predicted);
    for (size_t i = 0; i < measured.n_rows; i++) {
        const KvLedgerRow *m = &measured.rows[i], *p = &predicted.rows[i];
        if (m->bytes_read != p->bytes_read || m->tokens_encoded != p->tokens_encoded)
            return error_set(error, ERROR_FORMAT,
                             "tier %s: attention read %zu bytes and %zu tokens entered, where the plan says %zu and "
                             "%zu; this is a bug, and no figure of this run can be trusted",
                             kv_ledger_row_name(m, name), m->bytes_read, m->tokens_encoded, p->bytes_read,
                             p->tokens_encoded);
    }
    return 0;
}
