/* See report.h. */
#include "eval/perplexity/report.h"

#include "eval/proof.h"
#include "kvcache/policy_text.h"
#include "session/json_text.h"
#include "session/run_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The divergence of a policy from the base, over all scored tokens. */
typedef struct Divergence {
    MeanError kld, delta_p;
    double median, p90, p95, p99, p999, max;
    double delta_p_rms, same_top1;
} Divergence;

static bool summarise(const Evaluation *e, const EvalMode *mode, Divergence *out) {
    size_t n = e->n_scored;
    double *sorted = mode->kld == NULL ? NULL : malloc(n * sizeof *sorted);
    if (sorted == NULL)
        return false;
    memcpy(sorted, mode->kld, n * sizeof *sorted);
    sort_ascending(sorted, n);
    *out = (Divergence){.kld = mean_error(mode->kld, n),
                        .delta_p = mean_error(mode->delta_p, n),
                        .median = percentile(sorted, n, 0.5),
                        .p90 = percentile(sorted, n, 0.9),
                        .p95 = percentile(sorted, n, 0.95),
                        .p99 = percentile(sorted, n, 0.99),
                        .p999 = percentile(sorted, n, 0.999),
                        .max = sorted[n - 1],
                        .delta_p_rms = root_mean_square(mode->delta_p, n),
                        .same_top1 = (double)mode->n_same_top / (double)n};
    free(sorted);
    return true;
}

static double tokens_per_second(const Evaluation *e, const EvalMode *mode) {
    size_t n_tokens = 0;
    for (size_t i = 0; i < e->n_windows; i++)
        n_tokens += e->windows.items[i].end - e->windows.items[i].begin;
    return mode->seconds > 0 ? (double)n_tokens / mode->seconds : 0;
}

/* Text */

static void print_setup(const Evaluation *e, const PplSetup *setup, FILE *stream) {
    char backend[COMPUTED_BY_TEXT];
    fprintf(stream, "%s: perplexity as %s defines it, context %zu, stride %zu, %zu of %zu windows, BOS %s\n",
            setup->text_path, ppl_definition(setup->settings.definition)->name, setup->settings.context,
            setup->settings.stride, e->n_windows, e->windows.count, setup->bos);
    fprintf(stream, "%zu tokens scored of the text's %zu; computed by %s\n", e->n_scored, setup->n_text_tokens,
            computed_by(e->model->backend, backend));
    if (e->load_base != NULL)
        fprintf(stream, "full (from %s): PPL %.4f +- %.4f\n", e->load_base, evaluation_ppl(e, e->base_nll),
                evaluation_ppl_error(e, e->base_nll));
}

static void print_figures(const Evaluation *e, FILE *stream) {
    fprintf(stream, "\n%-11s %10s %8s  %11s %9s  %10s %9s  %6s %12s %8s %8s  %s\n", "mode", "PPL", "+-", "ln(q/full)",
            "+-", "KLD (nats)", "+-", "bits", "cache bytes", "of full", "tok/s", "policy");
    for (size_t i = 0; i < e->n_modes; i++) {
        const EvalMode *mode = &e->modes[i];
        char policy[KV_POLICY_TEXT];
        kv_policy_print(&mode->policy, policy, sizeof policy);
        fprintf(stream, "%-11s %10.4f %8.4f  ", kv_policy_mode(&mode->policy), evaluation_ppl(e, mode->nll),
                evaluation_ppl_error(e, mode->nll));
        if (mode->kld != NULL) {
            MeanError ratio = evaluation_ln_ratio(e, mode), kld = mean_error(mode->kld, e->n_scored);
            fprintf(stream, "%11.6f %9.6f  %10.6f %9.6f  ", ratio.mean, ratio.error, kld.mean, kld.error);
        } else
            fprintf(stream, "%11s %9s  %10s %9s  ", "-", "-", "-", "-");
        fprintf(stream, "%6.3f %12zu %8.4f %8.1f  %s\n", eval_mode_old_bits(mode), mode->ledger.bytes,
                (double)mode->ledger.bytes / (double)mode->ledger.bytes_full, tokens_per_second(e, mode), policy);
    }
}

/* How the divergence is spread over tokens, and what it does to the choice of the next one. */
static void print_divergence(const Evaluation *e, FILE *stream) {
    if (e->n_modes == 1 && e->modes[0].kld == NULL)
        return;
    fprintf(stream, "\n%-10s %9s %9s %9s %9s %9s %10s %9s %9s  %s\n", "KLD median", "90 %", "95 %", "99 %", "99.9 %",
            "max", "same top 1", "dp", "dp rms", "policy");
    for (size_t i = 0; i < e->n_modes; i++) {
        Divergence d;
        char policy[KV_POLICY_TEXT];
        if (!summarise(e, &e->modes[i], &d))
            continue;
        kv_policy_print(&e->modes[i].policy, policy, sizeof policy);
        fprintf(stream, "%-10.6f %9.6f %9.6f %9.6f %9.6f %9.5f %8.2f %% %9.6f %9.6f  %s\n", d.median, d.p90, d.p95,
                d.p99, d.p999, d.max, 100 * d.same_top1, d.delta_p.mean, d.delta_p_rms, policy);
    }
}

static void print_proof(const Evaluation *e, FILE *stream) {
    for (size_t i = 0; i < e->n_modes; i++)
        proof_print(&e->modes[i].ledger, &e->modes[i].policy, i == 0, stream);
}

static void print_attribution(const EvalMode *mode, FILE *stream) {
    const KvShape *shape = &mode->context.cache.layout.shape;
    char policy[KV_POLICY_TEXT];
    kv_policy_print(&mode->policy, policy, sizeof policy);
    fprintf(stream, "\nrelative errors that %s causes\n", policy);
    fprintf(stream, "%6s %8s %10s %10s %10s\n", "layer", "KV head", "K", "V", "output");
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        for (size_t head = 0; head < shape->n_kv_heads; head++) {
            HeadError error = attribution_error(mode->attribution, layer, head);
            fprintf(stream, "%6zu %8zu %10.6f %10.6f %10.6f\n", layer, head, error.keys, error.values, error.output);
        }
}

void perplexity_print(const Evaluation *e, const PplSetup *setup, FILE *stream) {
    print_setup(e, setup, stream);
    print_figures(e, stream);
    print_divergence(e, stream);
    print_proof(e, stream);
    for (size_t i = 0; i < e->n_modes; i++)
        if (e->modes[i].attribution != NULL)
            print_attribution(&e->modes[i], stream);
}

/* JSON */

static cJSON *divergence_json(const Divergence *d) {
    cJSON *kld = cJSON_CreateObject();
    cJSON_AddNumberToObject(kld, "mean", d->kld.mean);
    cJSON_AddNumberToObject(kld, "stderr", d->kld.error);
    cJSON_AddNumberToObject(kld, "median", d->median);
    cJSON_AddNumberToObject(kld, "p90", d->p90);
    cJSON_AddNumberToObject(kld, "p95", d->p95);
    cJSON_AddNumberToObject(kld, "p99", d->p99);
    cJSON_AddNumberToObject(kld, "p999", d->p999);
    cJSON_AddNumberToObject(kld, "max", d->max);
    cJSON_AddNumberToObject(kld, "same_top1", d->same_top1);
    cJSON_AddNumberToObject(kld, "delta_p_mean", d->delta_p.mean);
    cJSON_AddNumberToObject(kld, "delta_p_rms", d->delta_p_rms);
    return kld;
}

static cJSON *attribution_json(const EvalMode *mode) {
    const KvShape *shape = &mode->context.cache.layout.shape;
    cJSON *rows = cJSON_CreateArray();
    for (size_t layer = 0; layer < shape->n_layers; layer++)
        for (size_t head = 0; head < shape->n_kv_heads; head++) {
            HeadError error = attribution_error(mode->attribution, layer, head);
            cJSON *row = cJSON_CreateObject();
            cJSON_AddNumberToObject(row, "layer", (double)layer);
            cJSON_AddNumberToObject(row, "kv_head", (double)head);
            cJSON_AddNumberToObject(row, "k", error.keys);
            cJSON_AddNumberToObject(row, "v", error.values);
            cJSON_AddNumberToObject(row, "output", error.output);
            cJSON_AddItemToArray(rows, row);
        }
    return rows;
}

static cJSON *ppl_of_windows_json(const Evaluation *e, const double *nll) {
    cJSON *array = cJSON_CreateArray();
    for (size_t n = 1; n <= e->n_windows; n++)
        cJSON_AddItemToArray(array, cJSON_CreateNumber(evaluation_ppl_of_windows(e, nll, n)));
    return array;
}

static void add_setup(cJSON *root, const Evaluation *e, const PplSetup *setup) {
    json_add_string(root, "model", setup->model_path);
    json_add_string(root, "text_file", setup->text_path);
    backend_json(root, e->model->backend);
    cJSON_AddStringToObject(root, "definition", ppl_definition(setup->settings.definition)->name);
    cJSON_AddNumberToObject(root, "context", (double)setup->settings.context);
    cJSON_AddNumberToObject(root, "stride", (double)setup->settings.stride);
    cJSON_AddStringToObject(root, "bos", setup->bos);
    cJSON_AddNumberToObject(root, "n_text_tokens", (double)setup->n_text_tokens);
    cJSON_AddNumberToObject(root, "chunks", (double)e->n_windows);
    cJSON_AddNumberToObject(root, "chunks_of_text", (double)e->windows.count);
    cJSON_AddNumberToObject(root, "tokens_scored", (double)e->n_scored);
    if (e->load_base != NULL)
        cJSON_AddNumberToObject(root, "ppl_base", evaluation_ppl(e, e->base_nll));
}

cJSON *perplexity_mode_json(const Evaluation *e, const PplSetup *setup, const EvalMode *mode) {
    Divergence divergence;
    cJSON *root = cJSON_CreateObject();
    add_setup(root, e, setup);
    policy_json(root, &mode->policy);
    cJSON_AddNumberToObject(root, "ppl", evaluation_ppl(e, mode->nll));
    cJSON_AddNumberToObject(root, "ppl_stderr", evaluation_ppl_error(e, mode->nll));
    cJSON_AddItemToObject(root, "ppl_by_chunk", ppl_of_windows_json(e, mode->nll));
    if (summarise(e, mode, &divergence)) {
        MeanError ratio = evaluation_ln_ratio(e, mode);
        cJSON_AddNumberToObject(root, "ln_ratio", ratio.mean);
        cJSON_AddNumberToObject(root, "ln_ratio_stderr", ratio.error);
        cJSON_AddItemToObject(root, "kld", divergence_json(&divergence));
    }
    cJSON_AddNumberToObject(root, "bits_per_old_element", eval_mode_old_bits(mode));
    ledger_bytes_json(root, &mode->ledger);
    cJSON_AddItemToObject(root, "tiers", ledger_json(&mode->ledger));
    cJSON_AddItemToObject(root, "kernels", kernels_json(e->model, &mode->context.cache));
    cJSON_AddNumberToObject(root, "tokens_per_second", tokens_per_second(e, mode));
    if (mode->attribution != NULL)
        cJSON_AddItemToObject(root, "attribution", attribution_json(mode));
    return root;
}

cJSON *perplexity_json(const Evaluation *e, const PplSetup *setup) {
    cJSON *root = perplexity_mode_json(e, setup, &e->modes[e->n_modes - 1]);
    if (e->n_modes == 1)
        return root;
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < e->n_modes; i++)
        cJSON_AddItemToArray(modes, perplexity_mode_json(e, setup, &e->modes[i]));
    return root;
}

/* CSV: no field holds a quote, policies may hold commas. */

void perplexity_csv(const Evaluation *e, const PplSetup *setup, FILE *stream) {
    fprintf(stream,
            "definition,context,stride,chunks,tokens_scored,mode,policy,ppl,ppl_stderr,ln_ratio,ln_ratio_stderr,"
            "kld_mean,kld_stderr,kld_median,kld_p90,kld_p95,kld_p99,kld_p999,kld_max,same_top1,delta_p_mean,"
            "delta_p_rms,bits_per_old_element,kv_bytes,kv_bytes_full,tokens_per_second\n");
    for (size_t i = 0; i < e->n_modes; i++) {
        const EvalMode *mode = &e->modes[i];
        char policy[KV_POLICY_TEXT];
        Divergence d;
        kv_policy_print(&mode->policy, policy, sizeof policy);
        fprintf(stream, "%s,%zu,%zu,%zu,%zu,%s,\"%s\",%.9g,%.9g,", ppl_definition(setup->settings.definition)->name,
                setup->settings.context, setup->settings.stride, e->n_windows, e->n_scored,
                kv_policy_mode(&mode->policy), policy, evaluation_ppl(e, mode->nll),
                evaluation_ppl_error(e, mode->nll));
        if (summarise(e, mode, &d)) {
            MeanError ratio = evaluation_ln_ratio(e, mode);
            fprintf(stream, "%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,", ratio.mean,
                    ratio.error, d.kld.mean, d.kld.error, d.median, d.p90, d.p95, d.p99, d.p999, d.max, d.same_top1,
                    d.delta_p.mean, d.delta_p_rms);
        } else
            fprintf(stream, ",,,,,,,,,,,,,");
        fprintf(stream, "%.9g,%zu,%zu,%.9g\n", eval_mode_old_bits(mode), mode->ledger.bytes, mode->ledger.bytes_full,
                tokens_per_second(e, mode));
    }
}
