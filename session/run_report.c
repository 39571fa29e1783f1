/* Reports of a run; see run_report.h. */
#include "session/run_report.h"

#include "kvcache/policy_text.h"
#include "session/json_text.h"

#include <stdlib.h>

#define MANY_TOKENS 1024 /* of a prompt: backends may have kernels for batches */

/* Adds a name where the list lacks it, so that names stand in the order of their first use. */
static void add_name(cJSON *names, const char *name) {
    const cJSON *other;
    cJSON_ArrayForEach(other, names) if (strcmp(other->valuestring, name) == 0) return;
    cJSON_AddItemToArray(names, cJSON_CreateString(name));
}

static void add_products(cJSON *names, const Model *model, const TensorRole *role) {
    const Backend *b = model->backend;
    char name[KERNEL_NAME_BYTES];
    for (size_t layer = 0; role->use == TENSOR_MATRIX && layer < role_copies(role, &model->checkpoint.config);
         layer++) {
        const Tensor *w = role_tensor(role, &model->weights, layer);
        b->ops->name_matmul(b, w, 1, name);
        add_name(names, name);
        b->ops->name_matmul(b, w, MANY_TOKENS, name);
        add_name(names, name);
    }
}

static void add_tier(cJSON *names, const Backend *b, const KvTier *tier, const KvCacheLayout *layout) {
    char name[KERNEL_NAME_BYTES];
    b->ops->name_attention(b, tier->k, layout, name);
    add_name(names, name);
    b->ops->name_attention(b, tier->v, layout, name);
    add_name(names, name);
}

cJSON *kernels_json(const Model *model, const KvCache *cache) {
    cJSON *names = cJSON_CreateArray();
    const KvPolicy *policy = &cache->layout.policy;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        add_products(names, model, &TENSOR_ROLES[i]);
    for (size_t rule = 0; rule < policy->n_rules; rule++)
        for (size_t t = 0; t < policy->rules[rule].policy.n_tiers; t++)
            add_tier(names, model->backend, &policy->rules[rule].policy.tiers[t], &cache->layout);
    return names;
}

static double rate(const GenerationSpeed *speed) {
    return speed->seconds > 0 ? (double)speed->n_tokens / speed->seconds : 0;
}

static cJSON *token_array(const TokenList *tokens) {
    return cJSON_CreateIntArray(tokens->ids != NULL ? tokens->ids : (const int[]){0}, (int)tokens->count);
}

void ledger_bytes_json(cJSON *root, const KvLedger *ledger) {
    cJSON_AddNumberToObject(root, "kv_bytes", (double)ledger->bytes);
    cJSON_AddNumberToObject(root, "moments_bytes", (double)ledger->moments_bytes);
    cJSON_AddNumberToObject(root, "kv_bytes_full", (double)ledger->bytes_full);
}

cJSON *ledger_json(const KvLedger *ledger) {
    cJSON *tiers = cJSON_CreateArray();
    for (size_t i = 0; i < ledger->n_rows; i++) {
        const KvLedgerRow *row = &ledger->rows[i];
        char text[KV_ROW_NAME];
        cJSON *tier = cJSON_CreateObject();
        cJSON_AddStringToObject(tier, "name", kv_ledger_row_name(row, text));
        cJSON_AddStringToObject(tier, "codec_k", kv_codec_name(kv_codec(row->k)));
        cJSON_AddStringToObject(tier, "codec_v", kv_codec_name(kv_codec(row->v)));
        cJSON_AddNumberToObject(tier, "bits_per_element", row->bits);
        cJSON_AddBoolToObject(tier, "rotated_k", row->rotated_k);
        cJSON_AddBoolToObject(tier, "aware_k", row->aware_k);
        cJSON_AddBoolToObject(tier, "rotated_v", row->rotated_v);
        cJSON_AddBoolToObject(tier, "fitted_v", row->fitted_v);
        cJSON_AddNumberToObject(tier, "layers", (double)row->n_layers);
        if (row->local)
            cJSON_AddNumberToObject(tier, "lookback", (double)row->lookback);
        cJSON_AddNumberToObject(tier, "tokens", (double)row->tokens);
        cJSON_AddNumberToObject(tier, "bytes", (double)row->bytes);
        cJSON_AddNumberToObject(tier, "bytes_held", (double)row->bytes_held);
        cJSON_AddNumberToObject(tier, "bytes_read", (double)row->bytes_read);
        cJSON_AddNumberToObject(tier, "tokens_encoded", (double)row->tokens_encoded);
        cJSON_AddItemToArray(tiers, tier);
    }
    return tiers;
}

void policy_json(cJSON *root, const KvPolicy *policy) {
    char text[KV_POLICY_TEXT];
    kv_policy_print(policy, text, sizeof text);
    cJSON_AddStringToObject(root, "mode", kv_policy_mode(policy));
    cJSON_AddStringToObject(root, "policy", text);
    cJSON_AddNumberToObject(root, "kv_block_size", (double)policy->group);
}

void seed_json(cJSON *root, uint64_t seed) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    cJSON_AddRawToObject(root, "seed", text); /* 64 bits do not fit cJSON's double */
}

void seed_print(const SamplerOptions *options, FILE *stream) {
    if (options->temperature > 0)
        fprintf(stream, "seed: %llu\n", (unsigned long long)options->seed);
}

void sampler_json(cJSON *root, const SamplerOptions *options) {
    const Penalties *p = &options->penalties;
    seed_json(root, options->seed);
    cJSON_AddNumberToObject(root, "temperature", options->temperature);
    cJSON_AddNumberToObject(root, "top_k", (double)options->top_k);
    cJSON_AddNumberToObject(root, "top_p", options->top_p);
    cJSON_AddNumberToObject(root, "min_p", options->min_p);
    cJSON_AddNumberToObject(root, "repetition_penalty", p->repetition);
    cJSON_AddNumberToObject(root, "frequency_penalty", p->frequency);
    cJSON_AddNumberToObject(root, "presence_penalty", p->presence);
    cJSON_AddNumberToObject(root, "penalty_window", p->window == SIZE_MAX ? -1 : (double)p->window);
}

const char *computed_by(const Backend *backend, char text[COMPUTED_BY_TEXT]) {
    if (backend->device_name != NULL)
        snprintf(text, COMPUTED_BY_TEXT, "%s, %s", backend->device, backend->device_name);
    else
        snprintf(text, COMPUTED_BY_TEXT, "%s, %s, %d thread%s", backend->device, simd_level_name(backend->level),
                 backend->n_threads, backend->n_threads == 1 ? "" : "s");
    return text;
}

void backend_json(cJSON *root, const Backend *backend) {
    cJSON_AddStringToObject(root, "device", backend->device);
    if (backend->device_name != NULL)
        cJSON_AddStringToObject(root, "device_name", backend->device_name);
    if (backend->passed_over.code < 0)
        cJSON_AddStringToObject(root, "device_note", backend->passed_over.message);
    cJSON_AddNumberToObject(root, "threads", backend->n_threads);
    cJSON_AddStringToObject(root, "simd", simd_level_name(backend->level));
}

cJSON *run_report_json(const Generation *run, const char *model_path) {
    const Model *model = &run->session->model;
    const Context *context = &run->session->context;
    KvLedger ledger;
    kv_ledger(&context->cache, &ledger);
    cJSON *root = cJSON_CreateObject();
    json_add_string(root, "model", model_path);
    backend_json(root, model->backend);
    policy_json(root, &context->cache.layout.policy);
    cJSON_AddNumberToObject(root, "n_ctx", (double)context->n_ctx);
    sampler_json(root, &run->sampler->options);
    cJSON_AddNumberToObject(root, "n_prompt", (double)run->prompt.count);
    cJSON_AddItemToObject(root, "prompt_tokens", token_array(&run->prompt));
    cJSON_AddNumberToObject(root, "n_generated", (double)run->generated.count);
    json_add_text(root, "text", (StringView){run->text, run->text_length});
    cJSON_AddItemToObject(root, "tokens", token_array(&run->generated));
    cJSON_AddStringToObject(root, "end", generation_end_name(run->end));
    cJSON_AddNumberToObject(root, "prefill_tokens_per_second", rate(&run->prefill));
    cJSON_AddNumberToObject(root, "decode_tokens_per_second", rate(&run->decode));
    ledger_bytes_json(root, &ledger);
    cJSON_AddNumberToObject(root, "weights_bytes", (double)model->checkpoint.weights_bytes);
    cJSON_AddNumberToObject(root, "activations_bytes", (double)(context->arena_bytes + ledger.working_bytes));
    cJSON_AddItemToObject(root, "tiers", ledger_json(&ledger));
    cJSON_AddItemToObject(root, "kernels", kernels_json(model, &context->cache));
    if (run->reuse != NULL)
        prefix_reuse_json(run->reuse, root);
    return root;
}

int json_write(cJSON *root, FILE *stream, Error *error) {
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (text == NULL)
        return error_memory(error, "the JSON report", 0);
    fprintf(stream, "%s\n", text);
    free(text);
    return 0;
}

int json_commit(cJSON *root, OutputFile *file, Error *error) {
    return json_write(root, file->stream, error) < 0 ? error->code : output_file_commit(file, error);
}

static void print_speed(const char *what, const GenerationSpeed *speed, FILE *stream) {
    if (speed->n_tokens == 0)
        return;
    fprintf(stream, "%s: %zu tokens in %.2f s, %.1f tokens/s at depth %zu to %zu\n", what, speed->n_tokens,
            speed->seconds, rate(speed), speed->depth_begin, speed->depth_end);
}

void ledger_print(const KvLedger *ledger, FILE *stream) {
    fprintf(stream, "%-16s %8s %10s %10s %14s %14s\n", "cache tier", "layers", "bits", "tokens", "bytes held",
            "bytes taken");
    KvLedger folded = *ledger;
    kv_ledger_fold(&folded);
    for (size_t i = 0; i < folded.n_rows; i++) {
        const KvLedgerRow *row = &folded.rows[i];
        char text[KV_ROW_NAME];
        const char *rotation = row->rotated_k && row->rotated_v ? "  rotated"
                               : row->rotated_k                 ? "  K rotated"
                               : row->rotated_v                 ? "  V rotated"
                                                                : "";
        fprintf(stream, "%-16s %8zu %10.3f %10zu %14zu %14zu%s%s%s\n", kv_ledger_row_name(row, text), row->n_layers,
                row->bits, row->tokens, row->bytes_held, row->bytes, rotation, row->aware_k ? "  K rounded aware" : "",
                row->fitted_v ? "  V fitted" : "");
    }
    if (ledger->moments_bytes > 0)
        fprintf(stream, "%-16s %62zu  of queries, to round keys with\n", "moments", ledger->moments_bytes);
    if (ledger->row_dim > ledger->head_dim)
        fprintf(stream, "note: rows of %zu are padded to %zu, as the codecs need; bits count that\n", ledger->head_dim,
                ledger->row_dim);
    if (ledger->unrotatable > 0)
        fprintf(stream, "note: rows of %zu are no power of two, so codes stay unrotated\n", ledger->unrotatable);
    fprintf(stream, "%-16s %62zu  %.4f of full (%zu)\n", "sum", ledger->bytes,
            (double)ledger->bytes / (double)ledger->bytes_full, ledger->bytes_full);
}

void run_report_print(const Generation *run, FILE *stream) {
    const Model *model = &run->session->model;
    const KvCache *cache = &run->session->context.cache;
    char policy[KV_POLICY_TEXT], backend[COMPUTED_BY_TEXT], cure[CONTEXT_CURE_TEXT];
    KvLedger ledger;
    kv_ledger(cache, &ledger);
    kv_policy_print(&cache->layout.policy, policy, sizeof policy);
    print_speed("prompt", &run->prefill, stream);
    print_speed("generation", &run->decode, stream);
    if (run->reuse != NULL)
        prefix_reuse_print(run->reuse, stream);
    fprintf(stream, "ended: %s%s%s\n", generation_end_name(run->end), run->end == END_CONTEXT_FULL ? "; " : "",
            run->end == END_CONTEXT_FULL ? generation_context_cure(run, cure) : "");
    fprintf(stream, "computed by: %s; weights %.1f MB\n", computed_by(model->backend, backend),
            (double)model->checkpoint.weights_bytes / 1e6);
    fprintf(stream, "mode: %s, policy %s, %zu tokens of context\n", kv_policy_mode(&cache->layout.policy), policy,
            run->session->context.n_ctx);
    ledger_print(&ledger, stream);
}

RunSummary run_summarise(const Generation *run) {
    const KvCache *cache = &run->session->context.cache;
    KvLedger ledger;
    kv_ledger(cache, &ledger);
    RunSummary summary = {.prefill_rate = rate(&run->prefill),
                          .decode_rate = rate(&run->decode),
                          .depth = run->decode.depth_end,
                          .kv_bytes = ledger.bytes,
                          .kv_bytes_full = ledger.bytes_full};
    for (size_t i = 0; i < ledger.n_rows; i++)
        summary.kv_bytes_held += ledger.rows[i].bytes_held;
    snprintf(summary.mode, sizeof summary.mode, "%s", kv_policy_mode(&cache->layout.policy));
    kv_policy_print(&cache->layout.policy, summary.policy, sizeof summary.policy);
    return summary;
}

void run_summaries_print(const RunSummary *runs, size_t n, FILE *stream) {
    fprintf(stream, "%-12s %-24s %12s %12s %8s %12s %12s %8s\n", "mode", "policy", "prompt tok/s", "decode tok/s",
            "depth", "bytes held", "bytes taken", "of full");
    for (size_t i = 0; i < n; i++)
        fprintf(stream, "%-12s %-24s %12.1f %12.1f %8zu %12zu %12zu %8.3f\n", runs[i].mode, runs[i].policy,
                runs[i].prefill_rate, runs[i].decode_rate, runs[i].depth, runs[i].kv_bytes_held, runs[i].kv_bytes,
                (double)runs[i].kv_bytes / (double)runs[i].kv_bytes_full);
}
