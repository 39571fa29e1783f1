/* Experiments on a model: prompts that come again, contexts that grow, and a state before and after. Every time is
 * measured, with the prefix cache and without it. */
#include "base/checked.h"
#include "base/machine/clock.h"
#include "eval/prefix/experiments.h"
#include "eval/prefix/tensor_errors.h"

#include <stdlib.h>

/* ---- Reading a prompt */

typedef struct Reader {
    const Experiments *x;
    Sampler sampler;
    PrefixReuse reuse; /* opened where `reuses` */
    bool reuses;
} Reader;

static int reader_open(Reader *r, const Experiments *x, bool reuses, bool clear, Error *error) {
    const Model *model = &x->session->model;
    PrefixReuseOptions options = PREFIX_REUSE_DEFAULTS;
    *r = (Reader){.x = x, .reuses = reuses};
    options.folder = x->folder;
    options.clear = clear;
    if (sampler_open(&r->sampler, &(SamplerOptions){.top_p = 1}, model->checkpoint.config.n_vocab,
                     model->backend->level, error) < 0)
        return error->code;
    if (!reuses)
        return 0;
    if (prefix_reuse_open(&r->reuse, &options, error) < 0)
        return error->code;
    return prefix_reuse_attach(&r->reuse, x->session, error);
}

static void reader_close(Reader *r) {
    prefix_reuse_close(&r->reuse);
    sampler_close(&r->sampler);
}

/* Reads a prompt into an empty context, and generates n_new tokens, which are appended to `tokens`. */
static int read_prompt(Reader *r, TokenList *tokens, size_t n_new, double *seconds, Error *error) {
    const StringList no_stops = {.count = 0};
    const GenerationOptions options = {n_new, true, &no_stops};
    Generation run = {.session = r->x->session, .sampler = &r->sampler, .reuse = r->reuses ? &r->reuse : NULL};
    context_clear(&r->x->session->context);
    sampler_reset(&r->sampler);
    double start = clock_seconds();
    int status = generation_read(&run, tokens->ids, tokens->count, error);
    *seconds = clock_seconds() - start;
    if (status == 0 && n_new > 0)
        status = generation_continue(&run, &options, error);
    for (size_t i = 0; i < run.generated.count && status == 0; i++)
        status = token_list_append(tokens, run.generated.ids[i], error);
    generation_free(&run);
    return status;
}

static int append_text(const Experiments *x, TokenList *tokens, size_t begin, size_t n, Error *error) {
    if (begin + n > x->text->count)
        return error_set(error, ERROR_ARGUMENT, "the text has %zu tokens, the experiment needs %zu; give a longer one",
                         x->text->count, begin + n);
    for (size_t i = 0; i < n; i++)
        if (token_list_append(tokens, x->text->ids[begin + i], error) < 0)
            return error->code;
    return 0;
}

/* ---- 50 requests for 5 prompts */

enum { REQUESTS = 50, PROMPTS = 5 };

static int run_requests(const Experiments *x, bool reuses, double *seconds, PrefixCacheStats *stats, Error *error) {
    Reader r;
    int status = reader_open(&r, x, reuses, true, error);
    *seconds = 0;
    for (size_t i = 0; i < REQUESTS && status == 0; i++) {
        TokenList prompt = {0};
        double one = 0;
        status = append_text(x, &prompt, i % PROMPTS * x->prompt_tokens, x->prompt_tokens, error);
        if (status == 0)
            status = read_prompt(&r, &prompt, 0, &one, error);
        *seconds += one;
        token_list_free(&prompt);
    }
    if (status == 0 && reuses)
        prefix_cache_stats(r.reuse.prefixes, stats);
    reader_close(&r);
    return status;
}

cJSON *experiment_requests(const Experiments *x, Error *error) {
    double cold, cached;
    PrefixCacheStats stats = {0};
    if (run_requests(x, false, &cold, &stats, error) < 0 || run_requests(x, true, &cached, &stats, error) < 0)
        return NULL;
    double hit_rate = (double)stats.n_hits / (double)(stats.n_hits + stats.n_misses);
    fprintf(x->out,
            "\n%d requests, %d prompts of %zu tokens: %zu hits, %zu misses, hit rate %.0f %%\n"
            "reading: %.2f s without, %.2f s with the prefix cache, %.1f times as fast\n",
            REQUESTS, PROMPTS, x->prompt_tokens, stats.n_hits, stats.n_misses, hit_rate * 100, cold, cached,
            cold / cached);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "requests", REQUESTS);
    cJSON_AddNumberToObject(out, "prompt_tokens", (double)x->prompt_tokens);
    cJSON_AddNumberToObject(out, "hits", (double)stats.n_hits);
    cJSON_AddNumberToObject(out, "misses", (double)stats.n_misses);
    cJSON_AddNumberToObject(out, "hit_rate", hit_rate);
    cJSON_AddNumberToObject(out, "tokens_restored", (double)stats.tokens_restored);
    cJSON_AddNumberToObject(out, "seconds_without", cold);
    cJSON_AddNumberToObject(out, "seconds_with", cached);
    cJSON_AddNumberToObject(out, "speedup", cold / cached);
    return out;
}

/* ---- 5 agents, whose contexts grow by an answer and an observation each round */

enum { ROUNDS = 10, AGENTS = 5, ANSWER = 16, OBSERVATION = 48 };

typedef struct Round {
    size_t n_tokens, n_restored; /* of all agents */
    double seconds;
} Round;

static int run_round(Reader *r, TokenList contexts[AGENTS], size_t round, Round *out, Error *error) {
    const Experiments *x = r->x;
    for (size_t a = 0; a < AGENTS; a++) {
        double seconds;
        size_t observation = AGENTS * x->prompt_tokens + (round * AGENTS + a) * OBSERVATION;
        out->n_tokens += contexts[a].count;
        if (read_prompt(r, &contexts[a], ANSWER, &seconds, error) < 0)
            return error->code;
        out->seconds += seconds;
        out->n_restored += r->reuses ? r->reuse.restored.n_tokens : 0;
        if (append_text(x, &contexts[a], observation, OBSERVATION, error) < 0)
            return error->code;
    }
    return 0;
}

static int run_agents(const Experiments *x, bool reuses, Round rounds[ROUNDS], Error *error) {
    TokenList contexts[AGENTS] = {{0}};
    Reader r;
    int status = reader_open(&r, x, reuses, true, error);
    for (size_t a = 0; a < AGENTS && status == 0; a++)
        status = append_text(x, &contexts[a], a * x->prompt_tokens, x->prompt_tokens, error);
    for (size_t i = 0; i < ROUNDS && status == 0; i++)
        status = run_round(&r, contexts, i, &rounds[i], error);
    for (size_t a = 0; a < AGENTS; a++)
        token_list_free(&contexts[a]);
    reader_close(&r);
    return status;
}

cJSON *experiment_agents(const Experiments *x, Error *error) {
    Round cold[ROUNDS] = {{0}}, cached[ROUNDS] = {{0}};
    if (run_agents(x, false, cold, error) < 0 || run_agents(x, true, cached, error) < 0)
        return NULL;
    cJSON *rows = cJSON_CreateArray();
    double sum_cold = 0, sum_cached = 0;
    fprintf(x->out, "\n%-6s %10s %10s %12s %12s\n", "round", "tokens", "restored", "s without", "s with");
    for (size_t i = 0; i < ROUNDS; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddNumberToObject(row, "tokens", (double)cached[i].n_tokens);
        cJSON_AddNumberToObject(row, "tokens_restored", (double)cached[i].n_restored);
        cJSON_AddNumberToObject(row, "seconds_without", cold[i].seconds);
        cJSON_AddNumberToObject(row, "seconds_with", cached[i].seconds);
        cJSON_AddItemToArray(rows, row);
        sum_cold += cold[i].seconds;
        sum_cached += cached[i].seconds;
        fprintf(x->out, "%-6zu %10zu %10zu %12.3f %12.3f\n", i + 1, cached[i].n_tokens, cached[i].n_restored,
                cold[i].seconds, cached[i].seconds);
    }
    fprintf(x->out, "%-6s %21s %12.3f %12.3f  %.1f times as fast\n", "sum", "", sum_cold, sum_cached,
            sum_cold / sum_cached);
    return rows;
}

/* ---- A state, and tensors of the model, before and after */

/* Keys of the model's middle layer, as the last batch has them. */
typedef struct Captured {
    Context *context;
    float *keys; /* (n_tokens, n_kv_heads, head_dim) */
    size_t n_tokens;
} Captured;

static void capture(void *user, size_t layer, size_t n_tokens) {
    Captured *c = user;
    const ModelConfig *config = &c->context->model->checkpoint.config;
    Backend *b = c->context->model->backend;
    size_t bytes = n_tokens * config->n_kv_heads * config->head_dim * sizeof(float);
    if (layer == config->n_layers / 2 && c->keys != NULL && b->ops->read(b, c->keys, c->context->k, bytes, NULL) == 0)
        c->n_tokens = n_tokens;
}

static int add_tensor(const Experiments *x, const Captured *c, KvCodecId id, cJSON *rows, Error *error) {
    const ModelConfig *config = &x->session->model.checkpoint.config;
    const PrefixTensors shape = {c->n_tokens, config->n_kv_heads, config->head_dim, id, id, false};
    const PrefixStoreOptions options = {.memory_bytes = (size_t)64 << 20, .ttl_ms = 3600000};
    size_t n = c->n_tokens * config->n_kv_heads * config->head_dim;
    float *restored = malloc(2 * n * sizeof *restored);
    PrefixCache *prefixes = NULL;
    TensorErrors errors;
    double bits;
    int status = restored == NULL ? error_memory(error, "tensors", 2 * n * sizeof *restored)
                                  : prefix_cache_open(&prefixes, &options, error);
    if (status == 0)
        status = tensor_round_trip(prefixes, &shape, c->keys, restored, &errors, &bits, error);
    if (status == 0) {
        cJSON *row = tensor_errors_json(&errors, bits);
        cJSON_AddStringToObject(row, "codec", kv_codec_name(kv_codec(id)));
        cJSON_AddItemToArray(rows, row);
        fprintf(x->out, "keys of the middle layer, %zu tokens, %-6s %6.3f bits  MSE %.3e  max %.4f  cosine %.6f\n",
                c->n_tokens, kv_codec_name(kv_codec(id)), bits, errors.mse, errors.max, errors.cosine);
    }
    prefix_cache_close(prefixes);
    free(restored);
    return status;
}

/* All pieces of the context's state, malloc'd. */
static uint8_t *save_state(const Session *session, size_t *size_bytes) {
    const KvCache *cache = &session->context.cache;
    size_t n = kv_pieces(&cache->layout, cache->n_tokens, NULL);
    KvPiece *pieces = calloc(n, sizeof *pieces);
    *size_bytes = 0;
    if (pieces == NULL)
        return NULL;
    kv_pieces(&cache->layout, cache->n_tokens, pieces);
    for (size_t i = 0; i < n; i++)
        *size_bytes += pieces[i].size_bytes;
    uint8_t *bytes = malloc(*size_bytes + 1), *at = bytes;
    const KvMemory memory = context_memory(&session->context);
    for (size_t i = 0; i < n && bytes != NULL; at += pieces[i++].size_bytes)
        kv_piece_save(cache, &pieces[i], &memory, at, NULL);
    free(pieces);
    return bytes;
}

/* Reads the prompt a second time, from the store; its time, and whether the state has the same bytes. */
static int restore_once(const Experiments *x, Reader *r, TokenList *prompt, const uint8_t *before, size_t size_bytes,
                        const char *from, double prefill, cJSON *out, Error *error) {
    double seconds;
    size_t restored_bytes;
    char name[48];
    if (read_prompt(r, prompt, 0, &seconds, error) < 0)
        return error->code;
    uint8_t *after = save_state(x->session, &restored_bytes);
    bool same = after != NULL && restored_bytes == size_bytes && memcmp(before, after, size_bytes) == 0;
    free(after);
    fprintf(x->out, "%zu of %zu tokens restored from %s in %.1f ms, %.2f %% of their prefill; state of %.1f MB: %s\n",
            r->reuse.restored.n_tokens, prompt->count, from, r->reuse.restoring_seconds * 1e3,
            r->reuse.restoring_seconds / prefill * 100, (double)size_bytes / 1e6,
            same ? "the same bytes" : "other bytes");
    snprintf(name, sizeof name, "%s_seconds", from);
    cJSON_AddNumberToObject(out, name, r->reuse.restoring_seconds);
    snprintf(name, sizeof name, "%s_same", from);
    cJSON_AddBoolToObject(out, name, same);
    return 0;
}

static int compare_states(const Experiments *x, TokenList *prompt, cJSON *out, Error *error) {
    Reader cold, r;
    double prefill = 0, ignored;
    size_t size_bytes = 0;
    int status = reader_open(&cold, x, false, false, error);
    if (status == 0)
        status = read_prompt(&cold, prompt, 0, &prefill, error);
    reader_close(&cold);
    uint8_t *before = status == 0 ? save_state(x->session, &size_bytes) : NULL;
    cJSON_AddNumberToObject(out, "prefill_seconds", prefill);
    cJSON_AddNumberToObject(out, "tokens", (double)prompt->count);
    cJSON_AddNumberToObject(out, "state_bytes", (double)size_bytes);
    status = status < 0 || before != NULL ? status : error_memory(error, "a state", size_bytes);
    for (int pass = 0; pass < 2 && status == 0; pass++) { /* a second process would find what the first has written */
        status = reader_open(&r, x, true, pass == 0, error);
        if (status == 0 && pass == 0)
            status = read_prompt(&r, prompt, 0, &ignored, error);
        if (status == 0)
            status =
                restore_once(x, &r, prompt, before, size_bytes, pass == 0 ? "memory" : "disk", prefill, out, error);
        reader_close(&r);
    }
    free(before);
    return status;
}

cJSON *experiment_restored(const Experiments *x, Error *error) {
    static const KvCodecId IDS[] = {KV_F16, KV_INT8, KV_NF4};
    Context *context = &x->session->context;
    const ModelConfig *config = &x->session->model.checkpoint.config;
    TokenList prompt = {0};
    cJSON *out = cJSON_CreateObject(), *tensors = cJSON_AddArrayToObject(out, "tensors");
    Captured captured = {context, malloc(context->n_batch * config->n_kv_heads * config->head_dim * sizeof(float)), 0};
    size_t n = at_most(at_most(2048, context->n_ctx), x->text->count);
    int status = append_text(x, &prompt, 0, n, error);
    fprintf(x->out, "\n");
    context->on_attended = capture;
    context->on_attended_user = &captured;
    if (status == 0)
        status = compare_states(x, &prompt, out, error);
    context->on_attended = NULL;
    for (size_t i = 0; i < sizeof IDS / sizeof *IDS && status == 0 && captured.n_tokens > 0; i++)
        status = add_tensor(x, &captured, IDS[i], tensors, error);
    free(captured.keys);
    token_list_free(&prompt);
    if (status == 0)
        return out;
    cJSON_Delete(out);
    return NULL;
}
