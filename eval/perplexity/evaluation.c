/* See evaluation.h. */
#include "eval/perplexity/evaluation.h"

#include "base/checked.h"
#include "eval/proof.h"
#include "kvcache/policy_text.h"

#include <math.h>
#include <stdlib.h>
#include <xxhash.h>

#define POLICY_CHARS 160 /* of a policy's text in a message */

/* A policy is not evaluated where no scored query of any window sees less than a full cache would show it. */
static int check_effect(const KvCache *cache, const Evaluation *e, Error *error) {
    const PplWindows *windows = &e->windows;
    if (kv_policy_is_full(&cache->layout.policy))
        return 0;
    size_t longest = 0;
    for (size_t i = 0; i < windows->count; i++) {
        const PplWindow *w = &windows->items[i];
        size_t n_seen = w->end - w->begin - 1; /* by the query that predicts the window's last token */
        longest = at_least(n_seen, longest);
        if (policy_changes_query(cache, n_seen))
            return 0;
    }
    char text[KV_POLICY_TEXT];
    kv_policy_print(&cache->layout.policy, text, sizeof text);
    return error_set(error, ERROR_ARGUMENT,
                     "policy %.*s: a query sees at most %zu tokens, and all of them are in its sink and window (tokens "
                     "leave in groups of %zu), so this figure would be the full cache's; use %s or a smaller window",
                     POLICY_CHARS, text, longest, cache->layout.policy.group,
                     e->longer != NULL ? e->longer : "a longer --context");
}

static int open_mode(Evaluation *e, EvalMode *mode, const KvPolicy *policy, Error *error) {
    size_t n = e->windows.n_scored;
    bool is_base = e->divergence && e->load_base == NULL && mode == &e->modes[0];
    mode->policy = *policy;
    if (context_open(&mode->context, e->model, policy, e->n_ctx, e->n_batch, error) < 0 ||
        check_effect(&mode->context.cache, e, error) < 0)
        return error->code;
    mode->nll = is_base ? e->base_nll : calloc(n, sizeof(double));
    mode->right = calloc(n, sizeof *mode->right);
    if (e->divergence && !is_base) {
        mode->kld = calloc(n, sizeof(double));
        mode->delta_p = calloc(n, sizeof(double));
    }
    if (mode->nll == NULL || mode->right == NULL ||
        (e->divergence && !is_base && (mode->kld == NULL || mode->delta_p == NULL)))
        return error_memory(error, "scores of tokens", 3 * n * sizeof(double));
    if (e->attribution && !kv_policy_is_full(policy))
        return attribution_open(&mode->attribution, &mode->context, error);
    return 0;
}

static int open_base_file(Evaluation *e, Error *error) {
    BaseLogitsKey key = {.model = checkpoint_fingerprint(&e->model->checkpoint),
                         .n_vocab = e->model->checkpoint.config.n_vocab,
                         .n_rows = e->windows.n_scored};
    for (size_t i = 0; i < e->windows.count; i++) {
        const PplWindow *w = &e->windows.items[i];
        const uint64_t shape[] = {w->begin, w->end, w->first_target, (uint64_t)(int64_t)e->bos};
        key.tokens = XXH3_64bits_withSeed(shape, sizeof shape, key.tokens);
        key.tokens = XXH3_64bits_withSeed(e->tokens + w->begin, (w->end - w->begin) * sizeof *e->tokens, key.tokens);
    }
    return e->load_base != NULL ? base_logits_open(&e->base_file, e->load_base, &key, error)
                                : base_logits_create(&e->base_file, e->save_base, &key, error);
}

static int open_base(Evaluation *e, size_t n_batch, Error *error) {
    size_t n_vocab = e->model->checkpoint.config.n_vocab;
    if (!e->divergence)
        return 0;
    if (base_rows_open(&e->base, n_batch, n_vocab, error) < 0 ||
        ((e->load_base != NULL || e->save_base != NULL) && open_base_file(e, error) < 0))
        return error->code;
    e->base_nll = calloc(e->windows.n_scored, sizeof *e->base_nll);
    if (e->load_base != NULL)
        e->file_logits = calloc(n_batch * n_vocab, sizeof *e->file_logits);
    if (e->base_nll == NULL || (e->load_base != NULL && e->file_logits == NULL))
        return error_memory(error, "base logits", n_batch * n_vocab * sizeof *e->file_logits);
    return 0;
}

static int open_all(Evaluation *e, const KvPolicy *policies, size_t n_policies, Error *error) {
    size_t n_batch = e->n_batch > 0 ? e->n_batch : DEFAULT_BATCH;
    if (thread_pool_open(&e->pool, e->model->backend->n_threads, error) < 0)
        return error->code;
    e->scores = calloc(n_batch, sizeof *e->scores);
    e->batch = calloc(n_batch, sizeof *e->batch);
    e->modes = calloc(n_policies, sizeof *e->modes);
    if (e->scores == NULL || e->batch == NULL || e->modes == NULL)
        return error_memory(error, "the evaluation", n_policies * sizeof *e->modes);
    if (open_base(e, n_batch, error) < 0)
        return error->code;
    for (; e->n_modes < n_policies; e->n_modes++)
        if (open_mode(e, &e->modes[e->n_modes], &policies[e->n_modes], error) < 0) {
            e->n_modes++; /* it may be half open */
            return error->code;
        }
    return 0;
}

int evaluation_open(Evaluation *e, const KvPolicy *policies, size_t n_policies, Error *error) {
    int status = open_all(e, policies, n_policies, error);
    if (status < 0)
        evaluation_close(e);
    return status;
}

void evaluation_close(Evaluation *e) {
    for (size_t i = 0; i < e->n_modes; i++) {
        EvalMode *mode = &e->modes[i];
        attribution_close(mode->attribution);
        context_close(&mode->context);
        if (mode->nll != e->base_nll)
            free(mode->nll);
        free(mode->right);
        free(mode->kld);
        free(mode->delta_p);
    }
    thread_pool_close(e->pool);
    base_rows_close(&e->base);
    base_logits_close(&e->base_file);
    free(e->base_nll);
    free(e->file_logits);
    free(e->scores);
    free(e->batch);
    free(e->modes);
    ppl_windows_free(&e->windows);
    *e = (Evaluation){0};
}

double evaluation_ppl_of_windows(const Evaluation *e, const double *nll, size_t n_windows) {
    return exp(ppl_mean_nll(&e->windows, n_windows, nll));
}

double evaluation_ppl(const Evaluation *e, const double *nll) {
    return evaluation_ppl_of_windows(e, nll, e->n_windows);
}

double evaluation_ppl_error(const Evaluation *e, const double *nll) {
    return evaluation_ppl(e, nll) * mean_error(nll, e->n_scored).error;
}

MeanError evaluation_ln_ratio(const Evaluation *e, const EvalMode *mode) {
    MeanError ratio = mean_error_paired(mode->nll, e->base_nll, e->n_scored);
    ratio.mean =
        ppl_mean_nll(&e->windows, e->n_windows, mode->nll) - ppl_mean_nll(&e->windows, e->n_windows, e->base_nll);
    return ratio;
}

double eval_mode_old_bits(const EvalMode *mode) {
    double bits = 0, tokens = 0;
    for (size_t i = 0; i < mode->ledger.n_rows; i++) {
        const KvLedgerRow *row = &mode->ledger.rows[i];
        if (row->store < KV_FIRST_ENCODED)
            continue;
        bits += row->bits * (double)(row->tokens * row->n_layers);
        tokens += (double)(row->tokens * row->n_layers);
    }
    if (tokens > 0)
        return bits / tokens;
    return kv_policy_is_full(&mode->policy) ? 16 : 0;
}
