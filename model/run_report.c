/* Reports of a run; see run_report.h. */
#include "model/run_report.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdlib.h>

static void add_name(KernelNames *out, const char *operation, const char *type, const char *simd) {
    char *name = out->names[out->count++];
    snprintf(name, KERNEL_NAME_BYTES, "%s%s%s_%s", operation, type[0] ? "_" : "", type, simd);
    for (; *name != '\0'; name++)
        *name = (char)tolower((unsigned char)*name);
}

void kernel_names(const Model *model, KernelNames *out) {
    const Checkpoint *checkpoint = &model->checkpoint;
    const char *simd = model->backend->simd;
    out->count = 0;
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++) {
        bool used = false;
        for (size_t i = 0; i < checkpoint->n_tensors; i++)
            used = used || (checkpoint->tensors[i].type == type && checkpoint->tensors[i].n_dims > 1);
        if (used)
            add_name(out, "matmul", tensor_type_info(type)->name, simd);
    }
    add_name(out, "attention", "f16", simd);
    add_name(out, "rmsnorm", "", simd);
    add_name(out, "swiglu", "", simd);
}

static double rate(const GenerationSpeed *speed) {
    return speed->seconds > 0 ? (double)speed->n_tokens / speed->seconds : 0;
}

static cJSON *token_array(const TokenList *tokens) {
    return cJSON_CreateIntArray(tokens->ids != NULL ? tokens->ids : (const int[]){0}, (int)tokens->count);
}

static cJSON *tier_array(const Context *context) {
    const KvCache *cache = &context->cache;
    cJSON *tiers = cJSON_CreateArray(), *tier = cJSON_CreateObject();
    cJSON_AddStringToObject(tier, "codec_k", "f16");
    cJSON_AddStringToObject(tier, "codec_v", "f16");
    cJSON_AddNumberToObject(tier, "tokens", (double)cache->n_tokens);
    cJSON_AddNumberToObject(tier, "bytes_held", (double)context->kv_bytes);
    cJSON_AddNumberToObject(tier, "bytes_read", (double)cache->bytes_read);
    cJSON_AddNumberToObject(tier, "tokens_encoded", (double)cache->n_tokens);
    cJSON_AddItemToArray(tiers, tier);
    return tiers;
}

static cJSON *run_object(const Generation *run, const char *model_path, uint64_t seed) {
    const Model *model = &run->session->model;
    const Context *context = &run->session->context;
    char seed_text[24];
    snprintf(seed_text, sizeof seed_text, "%llu", (unsigned long long)seed);
    KernelNames kernels;
    kernel_names(model, &kernels);
    cJSON *root = cJSON_CreateObject(), *names = cJSON_CreateArray();
    cJSON_AddStringToObject(root, "model", model_path);
    cJSON_AddStringToObject(root, "device", model->backend->device);
    cJSON_AddNumberToObject(root, "threads", model->backend->n_threads);
    cJSON_AddStringToObject(root, "simd", model->backend->simd);
    cJSON_AddStringToObject(root, "mode", "full");
    cJSON_AddStringToObject(root, "policy", "f16:*");
    cJSON_AddNumberToObject(root, "n_ctx", (double)context->n_ctx);
    cJSON_AddRawToObject(root, "seed", seed_text); /* 64 bits do not fit cJSON's double */
    cJSON_AddNumberToObject(root, "n_prompt", (double)run->prompt.count);
    cJSON_AddItemToObject(root, "prompt_tokens", token_array(&run->prompt));
    cJSON_AddNumberToObject(root, "n_generated", (double)run->generated.count);
    cJSON_AddStringToObject(root, "text", run->text != NULL ? run->text : "");
    cJSON_AddItemToObject(root, "tokens", token_array(&run->generated));
    cJSON_AddStringToObject(root, "end", generation_end_name(run->end));
    cJSON_AddNumberToObject(root, "prefill_tokens_per_second", rate(&run->prefill));
    cJSON_AddNumberToObject(root, "decode_tokens_per_second", rate(&run->decode));
    cJSON_AddNumberToObject(root, "kv_bytes", (double)context->kv_bytes);
    cJSON_AddNumberToObject(root, "kv_bytes_full", (double)context->kv_bytes);
    cJSON_AddNumberToObject(root, "weights_bytes", (double)model->checkpoint.weights_bytes);
    cJSON_AddItemToObject(root, "tiers", tier_array(context));
    cJSON_AddItemToObject(root, "kernels", names);
    for (size_t i = 0; i < kernels.count; i++)
        cJSON_AddItemToArray(names, cJSON_CreateString(kernels.names[i]));
    return root;
}

int run_report_write(const Generation *run, const char *model_path, uint64_t seed, FILE *stream, Error *error) {
    cJSON *root = run_object(run, model_path, seed);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (text == NULL)
        return error_memory(error, "the JSON report", run->text_length);
    fprintf(stream, "%s\n", text);
    free(text);
    return 0;
}

static void print_speed(const char *what, const GenerationSpeed *speed, FILE *stream) {
    if (speed->n_tokens == 0)
        return;
    fprintf(stream, "%s: %zu tokens in %.2f s, %.1f tokens/s at depth %zu to %zu\n", what, speed->n_tokens,
            speed->seconds, rate(speed), speed->depth_begin, speed->depth_end);
}

void run_report_print(const Generation *run, FILE *stream) {
    const Model *model = &run->session->model;
    const Context *context = &run->session->context;
    size_t token_bytes = context->kv_bytes / context->n_ctx;
    print_speed("prompt", &run->prefill, stream);
    print_speed("generation", &run->decode, stream);
    fprintf(stream, "ended: %s\n", generation_end_name(run->end));
    fprintf(stream, "memory: weights %.1f MB; FP16 cache %.1f MB for %zu tokens, %.1f MB used by %zu\n",
            (double)model->checkpoint.weights_bytes / 1e6, (double)context->kv_bytes / 1e6, context->n_ctx,
            (double)(token_bytes * context->cache.n_tokens) / 1e6, context->cache.n_tokens);
    fprintf(stream, "computed by: %s, %s, %d thread%s\n", model->backend->device, model->backend->simd,
            model->backend->n_threads, model->backend->n_threads == 1 ? "" : "s");
}
