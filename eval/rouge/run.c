/* See run.h. Fresh and saved texts take one way: each becomes a record, and records are scored and summed. */
#include "eval/rouge/run.h"

#include "eval/proof.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "session/run_report.h"

#include <stdlib.h>
#include <xxhash.h>

/* ---- What a policy does to a text */

static bool is_encoded(const KvTier *tier) {
    return tier->k != KV_F16 || tier->v != KV_F16;
}

/* Whether some layer has quantized or dropped anything once n_tokens have come. */
static bool affects(const KvPolicy *policy, size_t n_layers, size_t n_tokens) {
    for (size_t layer = 0; layer < n_layers; layer++) {
        const KvLayerPolicy *own = kv_policy_of_layer(policy, layer);
        KvPlan plan = kv_plan(own, policy->group, n_tokens);
        if (kv_plan_dropped(&plan) > 0)
            return true;
        for (size_t tier = 0; tier < plan.n_tiers; tier++)
            if (is_encoded(&own->tiers[tier]) && kv_plan_held(&plan, tier) > 0)
                return true;
    }
    return false;
}

static size_t most_dropped(const KvCache *cache) {
    size_t most = 0;
    for (size_t layer = 0; layer < cache->layout.shape.n_layers; layer++) {
        size_t dropped = cache->n_tokens > 0 ? kvcache_dropped(cache, layer, cache->n_tokens - 1) : 0;
        most = dropped > most ? dropped : most;
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

static void put_text_fields(cJSON *record, size_t line, const char *mode, const char *policy, const char *text) {
    cJSON_AddNumberToObject(record, "line", (double)line);
    cJSON_AddStringToObject(record, "mode", mode);
    cJSON_AddStringToObject(record, "policy", policy);
    cJSON_AddStringToObject(record, "text", text);
}

static void put_run_fields(cJSON *record, const Generation *run, unsigned long long prompt_hash, size_t n_dropped) {
    cJSON_AddStringToObject(record, "end", generation_end_name(run->end));
    cJSON_AddNumberToObject(record, "n_prompt", (double)run->prompt.count);
    cJSON_AddNumberToObject(record, "n_generated", (double)run->generated.count);
    cJSON_AddNumberToObject(record, "n_decoded", (double)run->decode.n_tokens);
    cJSON_AddNumberToObject(record, "prefill_seconds", run->prefill.seconds);
    cJSON_AddNumberToObject(record, "decode_seconds", run->decode.seconds);
    cJSON_AddNumberToObject(record, "n_dropped", (double)n_dropped);
    rouge_results_add_hash(record, "prompt_xxh3", prompt_hash);
}

cJSON *rouge_run_example_record(void) {
    const Generation none = {0};
    cJSON *record = cJSON_CreateObject();
    put_text_fields(record, 0, "", "", "");
    put_run_fields(record, &none, 0, 0);
    cJSON_AddArrayToObject(record, "tiers");
    return record;
}

static unsigned long long hash_of_prompt(const TokenList *prompt) {
    return XXH3_64bits(prompt->ids, prompt->count * sizeof *prompt->ids);
}

static cJSON *make_record(const Generation *run, const RougeSample *sample) {
    const KvCache *cache = &run->session->context.cache;
    char policy[KV_POLICY_TEXT];
    KvLedger ledger;
    kv_ledger(cache, &ledger);
    kv_policy_print(&cache->layout.policy, policy, sizeof policy);
    cJSON *record = cJSON_CreateObject();
    put_text_fields(record, sample->line, kv_policy_mode(&cache->layout.policy), policy,
                    run->text == NULL ? "" : run->text);
    cJSON_AddItemToObject(record, "reference", cJSON_Duplicate(sample->references, true));
    put_run_fields(record, run, hash_of_prompt(&sample->prompt), most_dropped(cache));
    cJSON_AddItemToObject(record, "tiers", ledger_json(&ledger));
    return record;
}

/* Generates the sample's text with the context that is open. */
static int generate(const RougeWork *work, Sampler *sampler, const RougeSample *sample, cJSON **record, Error *error) {
    Generation run = {.session = work->session, .sampler = sampler, .interrupted = work->interrupted};
    GenerationOptions options = {work->max_new_tokens, false, &(StringList){.count = 0}};
    context_clear(&work->session->context);
    int status = generation_read(&run, sample->prompt.ids, sample->prompt.count, error);
    if (status == 0)
        status = generation_continue(&run, &options, error);
    if (status == 0 && run.end == END_INTERRUPTED)
        status = error_set(error, ERROR_INTERRUPTED, "interrupted");
    if (status == 0)
        status = proof_check(&work->session->context.cache, work->session->context.cache.n_tokens, error);
    if (status == 0)
        *record = make_record(&run, sample);
    generation_free(&run);
    return status;
}

/* ---- Adding records up */

static double number(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void add_number(cJSON *sum, const cJSON *item, const char *name) {
    cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(sum, name), number(sum, name) + number(item, name));
}

static void keep_larger(cJSON *most, const cJSON *item, const char *name) {
    if (number(item, name) > number(most, name))
        cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(most, name), number(item, name));
}

static bool is_encoded_tier(const cJSON *tier) {
    const char *k = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tier, "codec_k"));
    const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tier, "codec_v"));
    const char *f16 = kv_codec_name(kv_codec(KV_F16));
    return k != NULL && v != NULL && (strcmp(k, f16) != 0 || strcmp(v, f16) != 0);
}

/* Bytes that attention read from encoded tiers. */
static double encoded_bytes_read(const cJSON *tiers) {
    double sum = 0;
    for (const cJSON *tier = tiers->child; tier != NULL; tier = tier->next)
        sum += is_encoded_tier(tier) ? number(tier, "bytes_read") : 0;
    return sum;
}

static int add_tiers(RougeRun *run, const cJSON *tiers, Error *error) {
    if (run->tiers == NULL) {
        run->tiers = cJSON_Duplicate(tiers, true);
        return run->tiers == NULL ? error_memory(error, "the ledger", 0) : 0;
    }
    const cJSON *item = tiers->child;
    for (cJSON *sum = run->tiers->child; sum != NULL && item != NULL; sum = sum->next, item = item->next) {
        add_number(sum, item, "bytes_read");
        add_number(sum, item, "tokens_encoded");
        keep_larger(sum, item, "tokens");
        keep_larger(sum, item, "bytes_held");
    }
    return 0;
}

static int add_record(const RougeWork *work, size_t index, const cJSON *record, RougeRun *run, Error *error) {
    const RougeSample *sample = &work->samples->items[index];
    const cJSON *tiers = cJSON_GetObjectItemCaseSensitive(record, "tiers");
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "text"));
    if (tiers == NULL || text == NULL)
        return error_memory(error, "a record", 0);
    run->n_prompt += (size_t)number(record, "n_prompt");
    run->n_generated += (size_t)number(record, "n_generated");
    run->n_decoded += (size_t)number(record, "n_decoded");
    run->prefill_seconds += number(record, "prefill_seconds");
    run->decode_seconds += number(record, "decode_seconds");
    run->encoded_bytes_read += encoded_bytes_read(tiers);
    run->n_unaffected += encoded_bytes_read(tiers) == 0 && number(record, "n_dropped") == 0;
    if (add_tiers(run, tiers, error) < 0)
        return error->code;
    return rouge_score_texts(sample->references, sv(text), &work->rouge, sample->line, &run->scores[index], &run->blank,
                             error);
}

/* ---- The run */

/* A saved text counts only for the very prompt that this run has. */
static int check_saved(const RougeWork *work, const RougeSample *sample, const cJSON *record, Error *error) {
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", hash_of_prompt(&sample->prompt));
    const char *saved = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "prompt_xxh3"));
    if (strcmp(saved, hash) == 0)
        return 0;
    return error_set(error, ERROR_ARGUMENT,
                     "%s: its text for line %zu was made from another prompt; run with the same data and tokenizer, or "
                     "name another file with --output",
                     work->results->path, sample->line);
}

static int run_sample(RougeWork *work, Sampler *sampler, size_t index, const char *policy, RougeRun *run,
                      Error *error) {
    const RougeSample *sample = &work->samples->items[index];
    const cJSON *saved = work->results != NULL ? rouge_results_find(work->results, policy, sample->line) : NULL;
    if (saved != NULL) {
        if (check_saved(work, sample, saved, error) < 0)
            return error->code;
        return add_record(work, index, saved, run, error);
    }
    cJSON *record = NULL;
    int status = generate(work, sampler, sample, &record, error);
    if (status == 0)
        status = add_record(work, index, record, run, error);
    if (status == 0 && work->results != NULL)
        status = rouge_results_add(work->results, record, error);
    cJSON_Delete(record);
    work->n_done += status == 0;
    if (status == 0 && work->on_text != NULL)
        work->on_text(work, kv_policy_mode(&run->policy));
    return status;
}

static bool has_encoded_tier(const cJSON *tiers) {
    for (const cJSON *tier = tiers->child; tier != NULL; tier = tier->next)
        if (is_encoded_tier(tier))
            return true;
    return false;
}

static int run_samples(RougeWork *work, RougeRun *run, Error *error) {
    SamplerOptions greedy = {.temperature = 0, .top_p = 1};
    Sampler sampler;
    char policy[KV_POLICY_TEXT];
    size_t n_vocab = work->session->model.checkpoint.config.n_vocab, n = work->samples->count;
    kv_policy_print(&run->policy, policy, sizeof policy);
    if (sampler_open(&sampler, &greedy, n_vocab, error) < 0)
        return error->code;
    int status = 0;
    for (size_t i = 0; i < n && status == 0; i++)
        status = run_sample(work, &sampler, i, policy, run, error);
    sampler_close(&sampler);
    if (status < 0)
        return status;
    run->mean = rouge_mean(run->scores, n);
    if (!kv_policy_is_full(&run->policy) &&
        (run->n_unaffected == n || (has_encoded_tier(run->tiers) && run->encoded_bytes_read == 0)))
        return unaffected(&run->policy, n, error);
    return 0;
}

int rouge_run(RougeWork *work, const KvPolicy *policy, RougeRun *run, Error *error) {
    *run = (RougeRun){.policy = *policy, .scores = calloc(work->samples->count, sizeof *run->scores)};
    if (run->scores == NULL)
        return error_memory(error, "scores", work->samples->count * sizeof *run->scores);
    if (session_set_policy(work->session, work->options, policy, error) < 0)
        return error->code;
    run->kernels = kernels_json(&work->session->model, &work->session->context.cache);
    return run_samples(work, run, error);
}

void rouge_run_free(RougeRun *run) {
    free(run->scores);
    cJSON_Delete(run->tiers);
    cJSON_Delete(run->kernels);
    *run = (RougeRun){0};
}
