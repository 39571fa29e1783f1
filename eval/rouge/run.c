/* See run.h. Fresh and saved texts take one way: each is a record, and records are scored and summed. */
#include "eval/rouge/run.h"

#include "base/checked.h"
#include "eval/proof.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "session/run_report.h"

#include <stdlib.h>

/* ---- What a policy does to a text */

static bool is_encoded(KvCodecId k, KvCodecId v) {
    return k != KV_F16 || v != KV_F16;
}

/* Whether some layer has quantized or dropped anything once n_tokens have come. */
static bool affects(const KvPolicy *policy, size_t n_layers, size_t n_tokens) {
    for (size_t layer = 0; layer < n_layers; layer++) {
        const KvLayerPolicy *own = kv_policy_of_layer(policy, layer);
        KvPlan plan = kv_plan(own, policy->group, n_tokens);
        if (kv_plan_dropped(&plan) > 0)
            return true;
        for (size_t tier = 0; tier < plan.n_tiers; tier++)
            if (is_encoded(own->tiers[tier].k, own->tiers[tier].v) && kv_plan_held(&plan, tier) > 0)
                return true;
    }
    return false;
}

/* By the policy: what is out of a local layer's sight was not dropped. */
static size_t most_dropped(const KvCache *cache) {
    const KvPolicy *policy = &cache->layout.policy;
    size_t most = 0;
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++) {
        KvPlan plan = kv_plan(kv_policy_of_layer(policy, layer), policy->group, cache->n_tokens);
        most = at_least(kv_plan_dropped(&plan), most);
    }
    return most;
}

static int unaffected(const KvPolicy *policy, size_t n_samples, Error *error) {
    char text[KV_POLICY_TEXT];
    kv_policy_print(policy, text, sizeof text);
    return error_set(error, ERROR_ARGUMENT,
                     "policy %.200s quantizes and drops nothing in any of %zu samples, so its score would be the full "
                     "cache's; use longer texts, or a smaller sink and window",
                     text, n_samples);
}

int rouge_check_policy(const RougeWork *work, const KvPolicy *policy, Error *error) {
    const ModelConfig *config = &work->session->model.checkpoint.config;
    if (kv_policy_check(policy, config->n_layers, config->head_dim, work->n_ctx, error) < 0)
        return error->code;
    for (size_t i = 0; i < work->samples->count; i++)
        if (affects(policy, config->n_layers, work->samples->items[i].prompt.count + work->max_new_tokens - 1))
            return 0;
    return kv_policy_is_full(policy) ? 0 : unaffected(policy, work->samples->count, error);
}

/* ---- Making a record */

/* Strings of JSON files that are read again end at a NUL. No word is cut or joined by a space instead. */
static const char *text_without_nuls(Generation *run) {
    for (size_t i = 0; i < run->text_length; i++)
        if (run->text[i] == '\0')
            run->text[i] = ' ';
    return run->text == NULL ? "" : run->text;
}

/* What the context that is open has done. Strings are the run's and the caller's. */
static void make_record(Generation *run, size_t line, const char *policy, const char *hash, RougeRecord *record) {
    const KvCache *cache = &run->session->context.cache;
    *record = (RougeRecord){.line = line,
                            .mode = kv_policy_mode(&cache->layout.policy),
                            .policy = policy,
                            .text = text_without_nuls(run),
                            .end = generation_end_name(run->end),
                            .prompt_hash = hash,
                            .n_prompt = run->prompt.count,
                            .n_generated = run->generated.count,
                            .n_decoded = run->decode.n_tokens,
                            .n_dropped = most_dropped(cache),
                            .prefill_seconds = run->prefill.seconds,
                            .decode_seconds = run->decode.seconds};
    kv_ledger(cache, &record->ledger);
}

/* Generates the sample's text with the context that is open. */
static int generate(const RougeWork *work, const RougeSample *sample, Generation *run, Error *error) {
    GenerationOptions options = {work->max_new_tokens, false, &(StringList){.count = 0}};
    context_clear(&work->session->context);
    int status = generation_read(run, sample->prompt.ids, sample->prompt.count, error);
    if (status == 0)
        status = generation_continue(run, &options, error);
    if (status == 0 && run->end == END_INTERRUPTED)
        status = error_set(error, ERROR_INTERRUPTED, "interrupted");
    if (status == 0)
        status = proof_check(&work->session->context.cache, work->session->context.cache.n_tokens, error);
    return status;
}

/* ---- Adding records up */

size_t rouge_encoded_bytes_read(const KvLedger *ledger) {
    size_t sum = 0;
    for (size_t i = 0; i < ledger->n_rows; i++)
        sum += is_encoded(ledger->rows[i].k, ledger->rows[i].v) ? ledger->rows[i].bytes_read : 0;
    return sum;
}

/* Adds counters, and takes the larger tokens and bytes held. False where the two are not of one policy. */
static bool add_ledger(KvLedger *sum, const KvLedger *one) {
    if (sum->n_rows != one->n_rows)
        return false;
    for (size_t i = 0; i < sum->n_rows; i++) {
        KvLedgerRow *all = &sum->rows[i];
        const KvLedgerRow *row = &one->rows[i];
        if (all->k != row->k || all->v != row->v)
            return false;
        all->bytes_read += row->bytes_read;
        all->tokens_encoded += row->tokens_encoded;
        all->tokens = at_least(row->tokens, all->tokens);
        all->bytes_held = at_least(row->bytes_held, all->bytes_held);
    }
    return true;
}

static int add_record(const RougeWork *work, size_t index, const RougeRecord *record, RougeRun *run, Error *error) {
    const RougeSample *sample = &work->samples->items[index];
    if (!add_ledger(&run->ledger, &record->ledger))
        return error_set(error, ERROR_FORMAT,
                         "%s: the tiers of its text for line %zu are not those of %.200s; remove that line, or name "
                         "another file with --output",
                         work->results->output.path, record->line, record->policy);
    run->n_prompt += record->n_prompt;
    run->n_generated += record->n_generated;
    run->n_decoded += record->n_decoded;
    run->prefill_seconds += record->prefill_seconds;
    run->decode_seconds += record->decode_seconds;
    run->n_unaffected += rouge_encoded_bytes_read(&record->ledger) == 0 && record->n_dropped == 0;
    if (work->texts != NULL && (work->texts[index] = strdup(record->text)) == NULL)
        return error_memory(error, "a text", strlen(record->text));
    if (sample->references == NULL)
        return 0;
    return rouge_score_texts(sample->references, sv(record->text), &work->rouge, sample->line, &run->scores[index],
                             &run->blank, error);
}

/* ---- The run */

/* A saved text counts only for the very prompt that this run has. */
static int check_saved(const RougeWork *work, const RougeRecord *saved, const char *prompt_hash, Error *error) {
    if (strcmp(saved->prompt_hash, prompt_hash) == 0)
        return 0;
    return error_set(error, ERROR_ARGUMENT,
                     "%s: its text for line %zu was made from another prompt; run with the same data and tokenizer, or "
                     "name another file with --output",
                     work->results->output.path, saved->line);
}

static int run_sample(RougeWork *work, Sampler *sampler, size_t index, const char *policy, RougeRun *run,
                      Error *error) {
    const RougeSample *sample = &work->samples->items[index];
    char hash[ROUGE_HASH_TEXT];
    RougeRecord record;
    rouge_hash(sample->prompt.ids, sample->prompt.count * sizeof *sample->prompt.ids, hash);
    if (work->results != NULL && rouge_results_find(work->results, policy, sample->line, &record)) {
        if (check_saved(work, &record, hash, error) < 0)
            return error->code;
        return add_record(work, index, &record, run, error);
    }
    Generation generation = {.session = work->session, .sampler = sampler, .interrupted = work->interrupted};
    int status = generate(work, sample, &generation, error);
    if (status == 0) {
        make_record(&generation, sample->line, policy, hash, &record);
        status = add_record(work, index, &record, run, error);
    }
    if (status == 0 && work->results != NULL)
        status = rouge_results_add(work->results, &record, sample->references, error);
    generation_free(&generation);
    work->n_done += status == 0;
    if (status == 0 && work->on_text != NULL)
        work->on_text(work, kv_policy_mode(&run->policy));
    return status;
}

static bool has_encoded_row(const KvLedger *ledger) {
    for (size_t i = 0; i < ledger->n_rows; i++)
        if (is_encoded(ledger->rows[i].k, ledger->rows[i].v))
            return true;
    return false;
}

static int run_samples(RougeWork *work, RougeRun *run, Error *error) {
    SamplerOptions greedy = {.temperature = 0, .top_p = 1};
    Sampler sampler;
    char policy[KV_POLICY_TEXT];
    size_t n_vocab = work->session->model.checkpoint.config.n_vocab, n = work->samples->count;
    kv_policy_print(&run->policy, policy, sizeof policy);
    if (sampler_open(&sampler, &greedy, n_vocab, work->session->model.backend->level, error) < 0)
        return error->code;
    int status = 0;
    for (size_t i = 0; i < n && status == 0; i++)
        status = run_sample(work, &sampler, i, policy, run, error);
    sampler_close(&sampler);
    if (status < 0)
        return status;
    run->mean = rouge_mean(run->scores, n);
    if (!kv_policy_is_full(&run->policy) &&
        (run->n_unaffected == n || (has_encoded_row(&run->ledger) && rouge_encoded_bytes_read(&run->ledger) == 0)))
        return unaffected(&run->policy, n, error);
    return 0;
}

int rouge_run(RougeWork *work, const KvPolicy *policy, RougeRun *run, Error *error) {
    *run = (RougeRun){.policy = *policy, .scores = calloc(work->samples->count, sizeof *run->scores)};
    if (run->scores == NULL)
        return error_memory(error, "scores", work->samples->count * sizeof *run->scores);
    if (session_set_policy(work->session, work->options, policy, error) < 0)
        return error->code;
    kv_ledger_at(&work->session->context.cache.layout, 0, &run->ledger);
    run->kernels = kernels_json(&work->session->model, &work->session->context.cache);
    return run_samples(work, run, error);
}

void rouge_run_free(RougeRun *run) {
    free(run->scores);
    cJSON_Delete(run->kernels);
    *run = (RougeRun){0};
}
