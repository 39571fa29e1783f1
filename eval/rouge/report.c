/* See report.h. */
#include "eval/rouge/report.h"

#include "base/checked.h"
#include "kvcache/policy_text.h"
#include "session/json_text.h"
#include "session/run_report.h"

static const char *stemming(const RougeOptions *options) {
    return options->stem ? "stemmed" : "not stemmed";
}

/* ---- Pairs */

void rouge_pairs_print(const RougePairs *pairs, const RougeOptions *options, FILE *stream) {
    fprintf(stream, "%s as in rouge-score 0.1.2, %s\n", rouge_variant_name(options->variant), stemming(options));
    fprintf(stream, "%8s %10s %10s %10s\n", "n", "precision", "recall", "F");
    fprintf(stream, "%8zu %10.6f %10.6f %10.6f\n", pairs->count, pairs->mean.precision, pairs->mean.recall,
            pairs->mean.f);
}

/* Adds "n", "precision", "recall", "f" and "per_sample". */
static void add_scores(cJSON *root, const RougeScore *scores, size_t n, const RougeScore *mean) {
    cJSON_AddNumberToObject(root, "n", (double)n);
    cJSON_AddNumberToObject(root, "precision", mean->precision);
    cJSON_AddNumberToObject(root, "recall", mean->recall);
    cJSON_AddNumberToObject(root, "f", mean->f);
    cJSON *all = cJSON_AddArrayToObject(root, "per_sample");
    for (size_t i = 0; i < n; i++)
        cJSON_AddItemToArray(
            all, cJSON_CreateDoubleArray((double[]){scores[i].precision, scores[i].recall, scores[i].f}, 3));
}

static void add_options(cJSON *root, const RougeOptions *options) {
    cJSON_AddStringToObject(root, "variant", rouge_variant_name(options->variant));
    cJSON_AddBoolToObject(root, "stem", options->stem);
}

cJSON *rouge_pairs_json(const RougePairs *pairs, const RougeOptions *options) {
    cJSON *root = cJSON_CreateObject();
    add_options(root, options);
    add_scores(root, pairs->scores, pairs->count, &pairs->mean);
    cJSON_AddNumberToObject(root, "n_bad_lines", (double)pairs->n_bad);
    cJSON_AddNumberToObject(root, "n_blank", (double)pairs->blank.count);
    return root;
}

/* ---- Runs of a model */

static double rate(size_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static const char *chat_name(const RougeComparison *comparison) {
    return comparison->work->chat == NULL ? "none" : chat_template_name(comparison->work->chat);
}

static bool has_difference(const RougeComparison *comparison, size_t run) {
    return comparison->base < comparison->n_runs && run != comparison->base;
}

static int policy_width(const RougeComparison *comparison) {
    size_t width = strlen("policy");
    for (size_t i = 0; i < comparison->n_runs; i++) {
        width = at_least(kv_policy_print(&comparison->runs[i].policy, NULL, 0), width);
    }
    return (int)width;
}

static void print_run(const RougeComparison *comparison, size_t index, int width, FILE *stream) {
    const RougeRun *run = &comparison->runs[index];
    char policy[KV_POLICY_TEXT], difference[64] = "";
    kv_policy_print(&run->policy, policy, sizeof policy);
    if (has_difference(comparison, index))
        snprintf(difference, sizeof difference, "%+.4f [%+.4f, %+.4f]", run->difference.mean, run->difference.low,
                 run->difference.high);
    double n = (double)comparison->work->samples->count;
    fprintf(stream, "%-10s %-*s %9.4f %8.4f %8.4f  %-26s %7.1f %7.1f %10zu %14zu\n", kv_policy_mode(&run->policy),
            width, policy, run->mean.precision, run->mean.recall, run->mean.f, difference, (double)run->n_generated / n,
            rate(run->n_decoded, run->decode_seconds), run->n_unaffected, rouge_encoded_bytes_read(&run->ledger));
}

void rouge_comparison_print(const RougeComparison *comparison, FILE *stream) {
    const RougeWork *work = comparison->work;
    int width = policy_width(comparison);
    fprintf(
        stream,
        "%s as in rouge-score 0.1.2, %s; %zu samples, %zu of them cut; greedy, at most %zu new tokens; context %zu; "
        "chat template: %s\n",
        rouge_variant_name(work->rouge.variant), stemming(&work->rouge), work->samples->count, work->samples->n_cut,
        work->max_new_tokens, work->n_ctx, chat_name(comparison));
    fprintf(stream, "%-10s %-*s %9s %8s %8s  %-26s %7s %7s %10s %14s\n", "mode", width, "policy", "precision", "recall",
            "F", comparison->base < comparison->n_runs ? "F - full [95 %]" : "", "tokens", "tok/s", "unaffected",
            "encoded bytes");
    for (size_t i = 0; i < comparison->n_runs; i++)
        print_run(comparison, i, width, stream);
}

static cJSON *run_json(const RougeComparison *comparison, size_t index) {
    const RougeRun *run = &comparison->runs[index];
    const RougeSamples *samples = comparison->work->samples;
    cJSON *root = cJSON_CreateObject();
    policy_json(root, &run->policy);
    add_scores(root, run->scores, samples->count, &run->mean);
    if (has_difference(comparison, index)) {
        cJSON *difference = cJSON_AddObjectToObject(root, "difference");
        cJSON_AddNumberToObject(difference, "f", run->difference.mean);
        cJSON_AddNumberToObject(difference, "low", run->difference.low);
        cJSON_AddNumberToObject(difference, "high", run->difference.high);
    }
    cJSON_AddNumberToObject(root, "n_cut", (double)samples->n_cut);
    cJSON_AddNumberToObject(root, "n_unaffected", (double)run->n_unaffected);
    cJSON_AddNumberToObject(root, "n_blank", (double)run->blank.count);
    cJSON_AddNumberToObject(root, "n_prompt", (double)run->n_prompt);
    cJSON_AddNumberToObject(root, "n_generated", (double)run->n_generated);
    cJSON_AddItemToObject(root, "tiers", ledger_json(&run->ledger));
    cJSON_AddItemToObject(root, "kernels", cJSON_Duplicate(run->kernels, true));
    cJSON_AddNumberToObject(root, "tokens_per_second", rate(run->n_decoded, run->decode_seconds));
    cJSON_AddNumberToObject(root, "prefill_tokens_per_second", rate(run->n_prompt, run->prefill_seconds));
    return root;
}

cJSON *rouge_comparison_json(const RougeComparison *comparison) {
    const RougeWork *work = comparison->work;
    const RougeData *data = comparison->data;
    cJSON *root = cJSON_CreateObject();
    json_add_string(root, "model", work->options->checkpoint_path);
    json_add_string(root, "data", data->path);
    add_options(root, &work->rouge);
    cJSON_AddNumberToObject(root, "n", (double)work->samples->count);
    seed_json(root, comparison->seed);
    cJSON_AddNumberToObject(root, "resamples", (double)comparison->n_resamples);
    json_add_string(root, "prompt_template", data->prompt_template);
    cJSON_AddStringToObject(root, "chat_template", chat_name(comparison));
    cJSON_AddNumberToObject(root, "n_ctx", (double)work->n_ctx);
    cJSON_AddNumberToObject(root, "max_new_tokens", (double)work->max_new_tokens);
    cJSON_AddNumberToObject(root, "n_tokens_cut", (double)work->samples->n_tokens_cut);
    cJSON_AddNumberToObject(root, "n_too_long", (double)work->samples->n_too_long);
    cJSON_AddNumberToObject(root, "n_bad_lines", (double)work->samples->n_bad);
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < comparison->n_runs; i++)
        cJSON_AddItemToArray(modes, run_json(comparison, i));
    return root;
}
