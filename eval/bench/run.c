/* See run.h. */
#include "eval/bench/run.h"

#include "base/machine/clock.h"
#include "base/machine/memory.h"
#include "eval/bench/roofs.h"
#include "eval/proof.h"
#include "eval/statistics.h"
#include "kvcache/ledger.h"
#include "session/sampler.h"

#include <stdio.h>
#include <stdlib.h>

#define WARM_UP_TOKENS      8
#define DECODE_WORK         8 /* prompt tokens that take about as long as a generated one: for the progress line */
#define FIRST_PROMPT_TOKENS 20

/* ---- Opening */

/* The whole of what a generated token reads of the cache; see kv_ledger_predict(). */
static size_t kv_bytes_read(const KvCache *cache, size_t n_tokens) {
    KvLedger ledger;
    size_t bytes = 0;
    kv_ledger_at(&cache->layout, n_tokens, &ledger);
    for (size_t i = 0; i < ledger.n_rows; i++)
        bytes += ledger.rows[i].bytes_next;
    return bytes;
}

static void plan_point(const Bench *bench, const KvCache *cache, size_t depth, BenchPoint *point) {
    size_t sum = 0;
    for (size_t n = depth + 1; n <= depth + bench->n_generate; n++) /* a token reads itself too */
        sum += kv_bytes_read(cache, n);
    point->kv_bytes = (double)sum / (double)bench->n_generate;
    point->still_full =
        !kv_policy_is_full(&cache->layout.policy) && !policy_changes_query(cache, depth + bench->n_generate);
}

static int check_room(const Bench *bench, const KvPolicy *policy, size_t n_ctx, Error *error) {
    size_t deepest = bench->depths.items[bench->depths.count - 1], needed = deepest + bench_measured(bench);
    if (needed <= n_ctx || kv_policy_streams(policy, n_ctx))
        return 0;
    if (bench_measured(bench) > n_ctx)
        return error_set(error, ERROR_ARGUMENT,
                         "--prompt_tokens %zu and --generate_tokens %zu do not fit into the context of %zu tokens; use "
                         "fewer of them",
                         bench->n_prompt, bench->n_generate, n_ctx);
    return error_set(
        error, ERROR_ARGUMENT,
        "depth %zu with --prompt_tokens %zu and --generate_tokens %zu needs %zu tokens, and the context has "
        "%zu; use depths up to %zu, or fewer tokens",
        deepest, bench->n_prompt, bench->n_generate, needed, n_ctx, n_ctx - bench_measured(bench));
}

static int open_mode(Bench *bench, BenchMode *mode, const KvPolicy *policy, size_t n_ctx, double *rates, Error *error) {
    mode->policy = *policy;
    mode->points = calloc(bench->depths.count, sizeof *mode->points);
    if (mode->points == NULL)
        return error_memory(error, "figures", bench->depths.count * sizeof *mode->points);
    if (check_room(bench, policy, n_ctx, error) < 0 ||
        context_open(&mode->context, bench->model, policy, n_ctx, 0, error) < 0)
        return error->code;
    for (size_t d = 0; d < bench->depths.count; d++) {
        BenchPoint *point = &mode->points[d];
        double **series[BENCH_RATES] = {&point->decode_rates, &point->prefill_rates, &point->read_rates};
        for (size_t i = 0; i < BENCH_RATES; i++, rates += bench->n_repetitions)
            *series[i] = rates;
        plan_point(bench, &mode->context.cache, bench->depths.items[d], point);
    }
    return 0;
}

/* States take no more than the caches. */
static bool can_keep_states(const Bench *bench) {
    size_t bytes = 0;
    for (size_t i = 0; i < bench->n_modes; i++) {
        const KvCache *cache = &bench->modes[i].context.cache;
        size_t copies = cache->device == NULL ? 2 : 1; /* its own memory counts as available until it is used */
        bytes += copies * kvcache_bytes(cache);
    }
    return bench->n_repetitions > 1 && bytes <= memory_available();
}

int bench_open(Bench *bench, const KvPolicy *policies, size_t n_policies, size_t n_ctx, Error *error) {
    size_t n_reads = bench->depths.count * bench->n_repetitions, rates_of_mode = BENCH_RATES * n_reads;
    bench->weights_bytes = weights_bytes_per_token(&bench->model->weights, &bench->model->checkpoint.config);
    bench->n_modes = n_policies;
    bench->modes = calloc(n_policies, sizeof *bench->modes);
    bench->rates = calloc(n_policies * rates_of_mode, sizeof *bench->rates);
    bench->all_reads = calloc(n_policies * n_reads, sizeof *bench->all_reads);
    bench->one_thread_reads = calloc(n_policies * n_reads, sizeof *bench->one_thread_reads);
    bench->tokens = calloc(DEFAULT_BATCH, sizeof *bench->tokens);
    bench->ms = calloc(bench->n_generate, sizeof *bench->ms);
    if (bench->modes == NULL || bench->rates == NULL || bench->all_reads == NULL || bench->one_thread_reads == NULL ||
        bench->tokens == NULL || bench->ms == NULL)
        return error_memory(error, "figures", n_policies * rates_of_mode * sizeof *bench->rates);
    for (size_t i = 0; i < n_policies; i++)
        if (open_mode(bench, &bench->modes[i], &policies[i], n_ctx, bench->rates + i * rates_of_mode, error) < 0)
            return error->code;
    bench->keeps_states = can_keep_states(bench);
    return 0;
}

static void free_states(Bench *bench) {
    for (size_t i = 0; i < bench->n_modes; i++)
        cache_states_free(&bench->modes[i].states);
    bench->keeps_states = false;
}

void bench_close(Bench *bench) {
    if (bench->modes != NULL)
        free_states(bench);
    for (size_t i = 0; bench->modes != NULL && i < bench->n_modes; i++) {
        context_close(&bench->modes[i].context);
        free(bench->modes[i].points);
    }
    free(bench->modes);
    free(bench->rates);
    free(bench->all_reads);
    free(bench->one_thread_reads);
    free(bench->tokens);
    free(bench->ms);
    *bench = (Bench){0};
}

/* ---- Tokens through a model */

int32_t bench_token(size_t position, size_t n_vocab) {
    uint64_t p = position;
    return (int32_t)((7 * p * p + 13 * p + 11) % n_vocab);
}

static int check_interrupt(const Bench *bench, Error *error) {
    if (bench->interrupted != NULL && *bench->interrupted)
        return error_set(error, ERROR_INTERRUPTED, "interrupted");
    return 0;
}

/* The next n tokens of the sequence, at most a batch. */
static int read_batch(Bench *bench, Context *context, size_t n, LogitsWanted wanted, Error *error) {
    if (check_interrupt(bench, error) < 0)
        return error->code;
    for (size_t i = 0; i < n; i++)
        bench->tokens[i] = bench_token(context->cache.n_tokens + i, bench->model->checkpoint.config.n_vocab);
    return forward(context, bench->tokens, n, wanted, error);
}

/* As a prompt is read: in batches, with logits behind the last token. */
static int read_tokens(Bench *bench, Context *context, size_t n, Error *error) {
    for (size_t batch; n > 0; n -= batch) {
        batch = context_batch(context, n);
        if (read_batch(bench, context, batch, batch == n ? LOGITS_LAST : LOGITS_NONE, error) < 0)
            return error->code;
    }
    return 0;
}

int bench_first_token(Bench *bench, const Tokenizer *tokenizer, double program_start, Error *error) {
    static const char PROMPT[] = "The old lighthouse keeper climbed the stairs every evening, lit the lamp, and looked "
                                 "out over the dark water until the last ship had passed.";
    Context *context = &bench->modes[0].context;
    TokenList prompt = {0};
    Sampler sampler = {0};
    int status = tokenizer_encode(tokenizer, sv(PROMPT), TOKENIZE_ADD_BOS, &prompt, error);
    if (status == 0)
        status = sampler_open(&sampler, &(SamplerOptions){.top_p = 1}, bench->model->checkpoint.config.n_vocab,
                              bench->model->backend->level, error);
    bench->n_first_prompt = prompt.count < FIRST_PROMPT_TOKENS ? prompt.count : FIRST_PROMPT_TOKENS;
    if (bench->n_first_prompt > context->n_ctx)
        bench->n_first_prompt = context->n_ctx;
    if (status == 0)
        status = forward(context, prompt.ids, bench->n_first_prompt, LOGITS_LAST, error);
    if (status == 0)
        sampler_next(&sampler, context->logits);
    bench->first_token_seconds = clock_seconds() - program_start;
    sampler_close(&sampler);
    token_list_free(&prompt);
    context_clear(context);
    return status;
}

/* ---- Measuring */

/* While a cache is filled: how far all is, and how fast this is; in less than 80 columns. */
static void show_progress(Bench *bench, const BenchMode *mode, size_t repetition, size_t depth, double rate) {
    char note[128];
    int n = snprintf(note, sizeof note, "%zu of %zu, %s to %zu", repetition + 1, bench->n_repetitions,
                     kv_policy_mode(&mode->policy), depth);
    if (rate > 0)
        snprintf(note + n, sizeof note - (size_t)n, ", %.0f tokens/s", rate);
    progress_show(&bench->progress, bench->work_done, note);
}

static void empty(BenchMode *mode) {
    context_clear(&mode->context);
    mode->n_restored = 0;
}

static int check_counters(const BenchMode *mode, Error *error) {
    return proof_check_behind(&mode->context.cache, mode->n_restored, error);
}

/* For the repetitions that come; without them where memory does not suffice. */
static void keep(Bench *bench, BenchMode *mode) {
    const KvMemory memory = context_memory(&mode->context);
    Error no_memory;
    if (cache_states_keep(&mode->states, &mode->context.cache, &memory, &no_memory) < 0)
        free_states(bench);
}

/* Counters begin again, so those of the depth before are compared first. */
static int restore(BenchMode *mode, size_t depth, Error *error) {
    const KvMemory memory = context_memory(&mode->context);
    if (check_counters(mode, error) < 0 ||
        cache_states_restore(&mode->states, &mode->context.cache, &memory, depth, error) < 0)
        return error->code;
    mode->n_restored = depth;
    return 0;
}

static int fill(Bench *bench, BenchMode *mode, size_t repetition, size_t depth, Error *error) {
    Context *context = &mode->context;
    if (bench->keeps_states && repetition > 0 && restore(mode, depth, error) < 0)
        return error->code;
    double begin = clock_seconds();
    show_progress(bench, mode, repetition, depth, 0);
    for (size_t n_before = context->cache.n_tokens; context->cache.n_tokens < depth;) {
        size_t n = context_batch(context, depth - context->cache.n_tokens);
        if (read_batch(bench, context, n, LOGITS_NONE, error) < 0)
            return error->code;
        bench->work_done += n;
        show_progress(bench, mode, repetition, depth,
                      (double)(context->cache.n_tokens - n_before) / (clock_seconds() - begin));
    }
    if (bench->keeps_states && repetition == 0)
        keep(bench, mode);
    return 0;
}

static int time_reading(Bench *bench, double *rate, Error *error) {
    if (check_interrupt(bench, error) < 0 || backend_bandwidth(bench->model->backend, &bench->bandwidth, error) < 0)
        return error->code;
    *rate = bench->all_reads[bench->n_reads] = bench->bandwidth.all_threads;
    bench->one_thread_reads[bench->n_reads++] = bench->bandwidth.one_thread;
    return 0;
}

/* Tokens a second; the time of each token goes to bench->ms. */
static int time_decode(Bench *bench, Context *context, double *rate, Error *error) {
    double begin = clock_seconds(), before = begin;
    for (size_t i = 0; i < bench->n_generate; i++) {
        if (read_batch(bench, context, 1, LOGITS_LAST, error) < 0)
            return error->code;
        double now = clock_seconds();
        bench->ms[i] = 1e3 * (now - before);
        before = now;
    }
    *rate = (double)bench->n_generate / (before - begin);
    return 0;
}

static int time_prefill(Bench *bench, Context *context, double *rate, Error *error) {
    double begin = clock_seconds();
    if (read_tokens(bench, context, bench->n_prompt, error) < 0)
        return error->code;
    *rate = (double)bench->n_prompt / (clock_seconds() - begin);
    return 0;
}

/* The figures of a point and repetition, as soon as they are there: the table comes when all are. */
static void tell_point(const Bench *bench, const BenchMode *mode, size_t repetition, size_t d) {
    const BenchPoint *point = &mode->points[d];
    char line[160];
    snprintf(line, sizeof line, "depth %zu, %s: %.2f tokens/s generated, %.1f of the prompt (repetition %zu of %zu)",
             bench->depths.items[d], kv_policy_mode(&mode->policy), point->decode_rates[repetition],
             point->prefill_rates[repetition], repetition + 1, bench->n_repetitions);
    progress_tell(&bench->progress, line);
}

static int measure_point(Bench *bench, BenchMode *mode, size_t repetition, size_t d, Error *error) {
    BenchPoint *point = &mode->points[d];
    if (fill(bench, mode, repetition, bench->depths.items[d], error) < 0 ||
        time_reading(bench, &point->read_rates[repetition], error) < 0 ||
        time_decode(bench, &mode->context, &point->decode_rates[repetition], error) < 0 ||
        time_prefill(bench, &mode->context, &point->prefill_rates[repetition], error) < 0)
        return error->code;
    for (size_t i = 0; i < bench->n_generate; i++) {
        bool first = repetition == 0 && i == 0;
        point->ms_min = first || bench->ms[i] < point->ms_min ? bench->ms[i] : point->ms_min;
        point->ms_max = first || bench->ms[i] > point->ms_max ? bench->ms[i] : point->ms_max;
    }
    point->n = repetition + 1;
    bench->work_done += DECODE_WORK * bench->n_generate + bench->n_prompt;
    tell_point(bench, mode, repetition, d);
    return 0;
}

/* A prompt and a generated token for each policy, that no figure counts. */
static int warm_up(Bench *bench, Error *error) {
    for (size_t i = 0; i < bench->n_modes; i++) {
        Context *context = &bench->modes[i].context;
        empty(&bench->modes[i]);
        size_t n = WARM_UP_TOKENS < bench_measured(bench) ? WARM_UP_TOKENS : bench_measured(bench) - 1;
        if (read_tokens(bench, context, n, error) < 0 || read_tokens(bench, context, 1, error) < 0)
            return error->code;
        empty(&bench->modes[i]);
    }
    return 0;
}

static int measure_points(Bench *bench, size_t repetition, Error *error) {
    if (warm_up(bench, error) < 0)
        return error->code;
    for (size_t d = 0; d < bench->depths.count; d++)
        for (size_t i = 0; i < bench->n_modes; i++) {
            BenchMode *mode = &bench->modes[(repetition + i) % bench->n_modes];
            if (measure_point(bench, mode, repetition, d, error) < 0)
                return error->code;
        }
    return 0;
}

/* An interrupted repetition has figures too, of caches that must pass the same test. */
static int run_repetition(Bench *bench, size_t repetition, Error *error) {
    int status = measure_points(bench, repetition, error);
    if (status < 0 && status != ERROR_INTERRUPTED)
        return status;
    for (size_t i = 0; i < bench->n_modes; i++) {
        Error failure;
        if (check_counters(&bench->modes[i], &failure) < 0) {
            *error = failure;
            return failure.code;
        }
    }
    return status;
}

int bench_run(Bench *bench, Error *error) {
    size_t deepest = bench->depths.items[bench->depths.count - 1];
    size_t n_filled = deepest - (bench->depths.count - 1) * bench_measured(bench);
    size_t at_depth = DECODE_WORK * bench->n_generate + bench->n_prompt;
    size_t n_fills = bench->keeps_states ? 1 : bench->n_repetitions;
    size_t work = bench->n_modes * (n_fills * n_filled + bench->n_repetitions * bench->depths.count * at_depth);
    int status = 0;
    bench->progress = progress_begin("measuring", work, NULL);
    bench->work_done = 0;
    for (size_t repetition = 0; repetition < bench->n_repetitions && status == 0; repetition++)
        status = run_repetition(bench, repetition, error);
    progress_end(&bench->progress);
    sort_ascending(bench->all_reads, bench->n_reads);
    sort_ascending(bench->one_thread_reads, bench->n_reads);
    return status;
}
