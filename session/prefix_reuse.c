/* See prefix_reuse.h. */
#include "session/prefix_reuse.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "checkpoints/roles.h"

#include <stdlib.h>
#include <xxhash.h>

#define MEMORY_SHARE 4 /* of what may lie on disk, a quarter may lie in memory too */

static void print_note(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "note: %s\n", line);
}

int prefix_reuse_open(PrefixReuse *reuse, const PrefixReuseOptions *options, Error *error) {
    *reuse = (PrefixReuse){0};
    size_t bytes = options->megabytes << 20;
    const PrefixStoreOptions store = {.folder = options->folder,
                                      .disk_bytes = bytes,
                                      .memory_bytes = bytes / MEMORY_SHARE,
                                      .ttl_ms = (uint64_t)options->ttl_seconds * 1000,
                                      .clear = options->clear,
                                      .note = print_note};
    return prefix_cache_open(&reuse->prefixes, &store, error);
}

int prefix_reuse_open_memory(PrefixReuse *reuse, size_t bytes, Error *error) {
    *reuse = (PrefixReuse){0};
    const PrefixStoreOptions store = {.memory_bytes = bytes, .ttl_ms = UINT64_MAX};
    return prefix_cache_open(&reuse->prefixes, &store, error);
}

void prefix_reuse_close(PrefixReuse *reuse) {
    prefix_cache_close(reuse->prefixes);
    token_list_free(&reuse->held);
    free(reuse->identity);
    *reuse = (PrefixReuse){0};
}

/* ---- What states must have in common */

/* The files' bytes, and what readers make of them: a family may have a rule that no tensor shows. */
static uint64_t hash_model(const Model *model) {
    const Checkpoint *checkpoint = &model->checkpoint;
    uint64_t hash = checkpoint->n_files == 0 ? checkpoint_fingerprint(checkpoint) : 0;
    for (size_t i = 0; i < checkpoint->n_files; i++)
        hash = XXH3_64bits_withSeed(checkpoint->files[i].data, checkpoint->files[i].size, hash);
    return hash;
}

/* Divisors of RoPE's frequencies may depend on the capacity, and so do keys. */
static bool has_long_rope(const Context *context) {
    const Tensor *factors = context_rope_factors(context);
    return factors != NULL && sv_is(factors->name, ROPE_LONG_NAME);
}

/* "model 0123456789abcdef, llama, …\ncpu, avx2, batches of 128" */
static void name_computer(const Session *session, uint64_t model_hash, char *text, size_t size) {
    const Model *model = &session->model;
    const ModelConfig *c = &model->checkpoint.config;
    const Backend *b = model->backend;
    snprintf(text, size,
             "model %016llx, %s, heads=%zu, n_embd=%zu, n_ffn=%zu, vocabulary=%zu, rope=%.17g/%.17g%s, eps=%.9g\n"
             "%s, %s, batches of %zu",
             (unsigned long long)model_hash, c->family->name, c->n_heads, c->n_embd, c->n_ffn, c->n_vocab,
             c->rope_theta, c->rope_scale, has_long_rope(&session->context) ? " of a long cache" : "",
             (double)c->norm_eps, b->device, b->device_name != NULL ? b->device_name : simd_level_name(b->level),
             session->context.n_batch);
}

int prefix_reuse_attach(PrefixReuse *reuse, const Session *session, Error *error) {
    char computer[1024];
    if (reuse->session != session)
        reuse->model_hash = hash_model(&session->model); /* reads all of it */
    name_computer(session, reuse->model_hash, computer, sizeof computer);
    free(reuse->identity);
    reuse->session = session;
    reuse->identity = kv_state_identity(&session->context.cache.layout, computer);
    reuse->held.count = 0;
    reuse->n_restored = reuse->n_computed = 0;
    return reuse->identity != NULL ? 0 : error_memory(error, "the prefix cache", sizeof computer);
}

/* ---- Reuse */

static int hold(PrefixReuse *reuse, const int32_t *tokens, size_t n, Error *error) {
    for (size_t i = 0; i < n; i++)
        if (token_list_append(&reuse->held, tokens[i], error) < 0)
            return error->code;
    return 0;
}

size_t prefix_reuse_restore(PrefixReuse *reuse, Context *context, const int32_t *tokens, size_t n_tokens) {
    KvMemory memory = context_memory(context);
    double start = clock_seconds();
    Error no_memory = {0};
    reuse->held.count = 0;
    size_t n = prefix_cache_restore(reuse->prefixes, reuse->identity, &context->cache, &memory, tokens, n_tokens,
                                    context->logits, context->model->checkpoint.config.n_vocab, &reuse->restored);
    reuse->restoring_seconds = clock_seconds() - start;
    reuse->seconds = reuse->restored.seconds;
    if (hold(reuse, tokens, n, &no_memory) < 0) { /* as if nothing were stored */
        reuse->held.count = n = 0;
        kvcache_clear(&context->cache);
    }
    context->best = -1;
    reuse->n_restored += n;
    return n;
}

int prefix_reuse_computed(PrefixReuse *reuse, const Context *context, const int32_t *tokens, size_t n, double seconds,
                          Error *error) {
    if (hold(reuse, tokens, n, error) < 0)
        return error->code;
    reuse->seconds += seconds;
    if (context->cache.n_tokens % context->n_batch == 0)
        prefix_reuse_save(reuse, context, false);
    return 0;
}

void prefix_reuse_save(PrefixReuse *reuse, const Context *context, bool with_logits) {
    KvMemory memory = context_memory(context);
    const float *logits = with_logits && context->best < 0 ? context->logits : NULL;
    if (reuse->held.count == context->cache.n_tokens)
        prefix_cache_save(reuse->prefixes, reuse->identity, &context->cache, &memory, reuse->held.ids, logits,
                          context->model->checkpoint.config.n_vocab, reuse->seconds);
}

/* ---- Reports */

void prefix_reuse_print(const PrefixReuse *reuse, FILE *stream) {
    if (reuse->restored.n_tokens > 0)
        fprintf(stream, "prefix cache: %zu tokens restored in %.1f ms, %zu computed\n", reuse->restored.n_tokens,
                reuse->restoring_seconds * 1e3, reuse->n_computed);
    else
        fprintf(stream, "prefix cache: nothing restored: %s\n", reuse->restored.reason);
}

static double hit_rate(const PrefixCacheStats *stats) {
    size_t n = stats->n_hits + stats->n_misses;
    return n > 0 ? (double)stats->n_hits / (double)n : 0;
}

static double share_saved(const PrefixCacheStats *stats) {
    return stats->bytes_plain > 0 ? 1 - (double)stats->bytes_stored / (double)stats->bytes_plain : 0;
}

void prefix_reuse_json(PrefixReuse *reuse, cJSON *root) {
    PrefixCacheStats s;
    prefix_cache_stats(reuse->prefixes, &s);
    cJSON *prefix = cJSON_AddObjectToObject(root, "prefix"), *misses;
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"tokens_restored", (double)reuse->n_restored},
                   {"tokens_computed", (double)reuse->n_computed},
                   {"hits", (double)s.n_hits},
                   {"misses", (double)s.n_misses},
                   {"hit_rate", hit_rate(&s)},
                   {"evictions", (double)(s.store.memory_evicted + s.store.disk.n_evicted)},
                   {"expirations", (double)s.store.expired},
                   {"refused", (double)s.store.n_refused},
                   {"failed_writes", (double)s.store.disk.n_failed},
                   {"memory_bytes", (double)s.store.memory_bytes},
                   {"disk_bytes", (double)s.store.disk.used_bytes},
                   {"disk_entries", (double)s.store.disk.n_entries},
                   {"bytes_stored", (double)s.bytes_stored},
                   {"bytes_fp16", (double)s.bytes_plain},
                   {"seconds_restoring", s.seconds_restoring},
                   {"seconds_saved", s.seconds_saved}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(prefix, numbers[i].name, numbers[i].value);
    if (reuse->restored.n_tokens == 0 && reuse->session != NULL)
        cJSON_AddStringToObject(prefix, "miss", reuse->restored.reason);
    misses = cJSON_AddObjectToObject(prefix, "miss_reasons");
    for (PrefixMiss reason = 0; reason < MISS_COUNT; reason++)
        if (s.misses[reason] > 0)
            cJSON_AddNumberToObject(misses, prefix_miss_name(reason), (double)s.misses[reason]);
}

void prefix_reuse_print_stats(PrefixReuse *reuse, FILE *stream) {
    PrefixCacheStats s;
    prefix_cache_stats(reuse->prefixes, &s);
    fprintf(stream, "prefix cache  hits %zu, misses %zu, hit rate %.0f %%", s.n_hits, s.n_misses, hit_rate(&s) * 100);
    for (PrefixMiss reason = 0; reason < MISS_COUNT; reason++)
        if (s.misses[reason] > 0)
            fprintf(stream, "; %s: %zu", prefix_miss_name(reason), s.misses[reason]);
    fprintf(stream, "\n  tokens      %zu restored, %zu computed\n", reuse->n_restored, reuse->n_computed);
    fprintf(stream, "  time        %.2f s saved, %.3f s spent restoring\n", s.seconds_saved, s.seconds_restoring);
    fprintf(stream, "  stored      %.1f MB in place of %.1f MB in FP16 (%.0f %% saved)\n", (double)s.bytes_stored / 1e6,
            (double)s.bytes_plain / 1e6, share_saved(&s) * 100);
    fprintf(stream, "  on disk     %zu entries, %.1f of %.1f MB\n", s.store.disk.n_entries,
            (double)s.store.disk.used_bytes / 1e6, (double)s.store.disk.budget_bytes / 1e6);
    fprintf(stream, "  in memory   %zu entries, %.1f MB\n", s.store.memory_entries, (double)s.store.memory_bytes / 1e6);
    fprintf(stream, "  gone        %zu evicted, %zu expired, %zu refused, %zu writes failed\n",
            s.store.memory_evicted + s.store.disk.n_evicted, s.store.expired, s.store.n_refused, s.store.disk.n_failed);
}
