/* The profiler at the seam: what it counts is what the model's shapes and the ledger say, it changes no logits, and
 * what is written of it can be read. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "eval/profile/profiled_mode.h"
#include "eval/profile/report_html.h"
#include "eval/profile/sweep.h"
#include "eval/profile/timed_backend.h"
#include "eval/profile/trace.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"
#include "tests/model_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_BATCH = 16, N_PROMPT = 40, N_DECODE = 23, N_CTX = 128 };

/* A model, and a cache with a sink, a window and codes, that has read a prompt and then single tokens. */
typedef struct Run {
    ModelCase c;
    Model model;
    Context context;
    Profile profile;
    Backend *timed; /* NULL: not timed */
    float *logits;  /* (N_DECODE, n_vocab) */
} Run;

static void run_open(Run *run, bool times) {
    Error error = {0};
    KvPolicy policy = {.group = 32};
    Backend *backend;
    *run = (Run){0};
    assert_true(model_case_load(&run->c, fixture_path("STOWKV_FIXTURES", "models/f32.tokens")));
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 2, &error), 0);
    assert_int_equal(model_open(&run->model, run->c.path, backend, &error), 0);
    if (times) {
        assert_int_equal(timed_backend_open(&run->timed, backend, &run->profile, &error), 0);
        run->model.backend = run->timed;
        profile_start(&run->profile);
    }
    assert_int_equal(kv_policy_parse("sink=4,f16:8,int8:*", &policy, &error), 0);
    assert_int_equal(context_open(&run->context, &run->model, &policy, N_CTX, N_BATCH, &error), 0);
    size_t n_vocab = run->model.checkpoint.config.n_vocab;
    run->logits = malloc(N_DECODE * n_vocab * sizeof *run->logits);
    assert_non_null(run->logits);
    for (size_t i = 0; i < N_PROMPT + N_DECODE;) {
        int32_t tokens[N_BATCH];
        size_t n = i < N_PROMPT ? (N_PROMPT - i < N_BATCH ? N_PROMPT - i : N_BATCH) : 1;
        for (size_t t = 0; t < n; t++)
            tokens[t] = (int32_t)((i + t) * 7 % n_vocab);
        assert_int_equal(forward(&run->context, tokens, n, i < N_PROMPT ? LOGITS_NONE : LOGITS_LAST, &error), 0);
        if (i >= N_PROMPT)
            memcpy(run->logits + (i - N_PROMPT) * n_vocab, run->context.logits, n_vocab * sizeof *run->logits);
        i += n;
    }
}

static void run_close(Run *run) {
    context_close(&run->context);
    if (run->timed != NULL)
        run->model.backend = timed_backend_close(run->timed);
    model_close(&run->model);
    model_case_free(&run->c);
    profile_free(&run->profile);
    free(run->logits);
}

static void test_changes_nothing(void **state) {
    (void)state;
    Run plain, timed;
    run_open(&plain, false);
    run_open(&timed, true);
    size_t n_vocab = plain.model.checkpoint.config.n_vocab;
    assert_memory_equal(plain.logits, timed.logits, N_DECODE * n_vocab * sizeof *plain.logits);
    run_close(&plain);
    run_close(&timed);
}

/* Without the profiler nothing knows of it: the model calls the backend's own table, which the timed one has a copy of
 * beside it. */
static void test_off(void **state) {
    (void)state;
    Error error = {0};
    Profile profile = {0};
    Backend *backend, *timed;
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    const BackendOps *own = backend->ops;
    const BackendOps before = *own;
    assert_int_equal(timed_backend_open(&timed, backend, &profile, &error), 0);
    assert_ptr_not_equal(timed->ops, own);
    assert_ptr_equal(backend->ops, own);
    assert_memory_equal(own, &before, sizeof before);
    assert_ptr_equal(timed_backend_close(timed), backend);
    assert_ptr_equal(backend->ops, own);
    backend->ops->close(backend);
}

static void assert_near(double value, double expected) {
    if (fabs(value - expected) > 1e-9 * fabs(expected))
        fail_msg("%.17g; expected %.17g", value, expected);
}

/* Of `n` single tokens: each matrix once, its input and its output. */
static void check_product(const ProfilePhase *phase, ProfileOp op, const Tensor *const *w, size_t n_matrices,
                          size_t n_layers, size_t n) {
    double bytes = (double)w[0]->shape[0] * sizeof(float), flops = 0;
    for (size_t i = 0; i < n_matrices; i++) {
        bytes += (double)w[i]->size_bytes + (double)w[i]->shape[1] * sizeof(float);
        flops += 2 * (double)w[i]->shape[0] * (double)w[i]->shape[1];
    }
    assert_int_equal(phase->ops[op].calls, n * n_layers);
    assert_near(phase->ops[op].bytes, bytes * (double)(n * n_layers));
    assert_near(phase->ops[op].flops, flops * (double)(n * n_layers));
}

static double bytes_read(const KvCacheLayout *layout, size_t n_tokens) {
    KvLedger ledger;
    double sum = 0;
    kv_ledger_predict(layout, n_tokens, &ledger);
    for (size_t i = 0; i < ledger.n_rows; i++)
        sum += (double)ledger.rows[i].bytes_read;
    return sum;
}

/* Each token sees all up to itself: a product with a key and one with a value, in each head and layer. */
static void check_attention(const Run *run, const ProfilePhase *phase, size_t begin, size_t end) {
    const ModelConfig *c = &run->model.checkpoint.config;
    const KvCacheLayout *layout = &run->context.cache.layout;
    double width = (double)(c->n_heads * c->head_dim), seen = 0, n = (double)(end - begin);
    for (size_t i = begin; i < end; i++)
        seen += (double)(i + 1);
    assert_near(phase->ops[PROFILE_ATTENTION].flops, seen * 4 * width * (double)c->n_layers);
    assert_near(phase->ops[PROFILE_ATTENTION].bytes, bytes_read(layout, end) - bytes_read(layout, begin) +
                                                         n * 2 * width * sizeof(float) * (double)c->n_layers);
}

static void test_counts(void **state) {
    (void)state;
    Run run;
    run_open(&run, true);
    Profile *profile = &run.profile;
    const ModelConfig *c = &run.model.checkpoint.config;
    const LayerWeights *w = &run.model.weights.layers[0];
    profile_finish(profile, &run.context.cache, c);
    const ProfilePhase *prompt = &profile->phases[PROFILE_PROMPT], *decode = &profile->phases[PROFILE_DECODE];
    assert_int_equal(prompt->n_tokens, N_PROMPT);
    assert_int_equal(prompt->n_steps, (N_PROMPT + N_BATCH - 1) / N_BATCH);
    assert_int_equal(decode->n_tokens, N_DECODE);
    assert_int_equal(decode->n_steps, N_DECODE);
    assert_int_equal(prompt->ops[PROFILE_LOGITS].calls, 0);
    assert_int_equal(prompt->ops[PROFILE_ATTENTION].calls, prompt->n_steps * c->n_layers);
    check_product(decode, PROFILE_QKV, (const Tensor *[]){&w->attn_q, &w->attn_k, &w->attn_v}, 3, c->n_layers,
                  N_DECODE);
    check_product(decode, PROFILE_ATTN_OUTPUT, (const Tensor *[]){&w->attn_output}, 1, c->n_layers, N_DECODE);
    check_product(decode, PROFILE_GATE_UP, (const Tensor *[]){&w->ffn_gate, &w->ffn_up}, 2, c->n_layers, N_DECODE);
    check_product(decode, PROFILE_FFN_DOWN, (const Tensor *[]){&w->ffn_down}, 1, c->n_layers, N_DECODE);
    check_product(decode, PROFILE_LOGITS, (const Tensor *[]){&run.model.weights.output}, 1, 1, N_DECODE);
    check_attention(&run, prompt, 0, N_PROMPT);
    check_attention(&run, decode, N_PROMPT, N_PROMPT + N_DECODE);
    run_close(&run);
}

/* Times are the machine's, but no operation can take longer than its step, and all of them no longer than all steps. */
static void test_sums(void **state) {
    (void)state;
    Run run;
    run_open(&run, true);
    Profile *profile = &run.profile;
    profile_finish(profile, &run.context.cache, &run.model.checkpoint.config);
    double phases = 0, events = 0;
    for (int i = 0; i < PROFILE_PHASE_COUNT; i++)
        phases += profile->phases[i].seconds;
    for (size_t i = 0; i < profile->n_events; i++) {
        const ProfileEvent *event = &profile->events[i];
        assert_true(event->seconds >= 0 && event->begin >= 0);
        assert_true(event->layer < run.model.checkpoint.config.n_layers);
        events += event->seconds;
    }
    assert_int_equal(profile->n_events_left_out, 0);
    assert_true(fabs(events - profile_counted_seconds(profile)) < 1e-9);
    assert_true(fabs(phases - profile_wall_seconds(profile)) < 1e-9);
    assert_true(profile_counted_seconds(profile) <= profile_wall_seconds(profile));
    for (size_t i = 1; i < profile->n_steps; i++) {
        assert_true(profile->steps[i].begin >= profile->steps[i - 1].end);
        assert_int_equal(profile->steps[i].depth, profile->steps[i - 1].depth + profile->steps[i - 1].n_tokens);
    }
    run_close(&run);
}

/* What was written, as a string that the caller frees. */
static char *read_back(FILE *stream) {
    long size = ftell(stream);
    char *text = calloc((size_t)size + 1, 1);
    assert_non_null(text);
    rewind(stream);
    assert_int_equal(fread(text, 1, (size_t)size, stream), size);
    fclose(stream);
    return text;
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        n++;
    return n;
}

static void check_trace(const ProfiledMode *mode) {
    FILE *stream = tmpfile();
    trace_begin(stream);
    trace_add(mode, 1, stream);
    trace_end(stream);
    char *text = read_back(stream);
    cJSON *trace = cJSON_Parse(text), *event;
    assert_non_null(trace);
    size_t n_operations = 0, n_steps = 0;
    cJSON_ArrayForEach(event, cJSON_GetObjectItem(trace, "traceEvents")) {
        bool complete = strcmp(cJSON_GetObjectItem(event, "ph")->valuestring, "X") == 0;
        double row = complete ? cJSON_GetObjectItem(event, "tid")->valuedouble : 0;
        n_steps += row == 1;
        n_operations += row == 2;
    }
    assert_int_equal(n_steps, mode->profile.n_steps);
    assert_int_equal(n_operations, mode->profile.n_events);
    cJSON_Delete(trace);
    free(text);
}

static void check_csv(const ProfiledMode *mode) {
    FILE *stream = tmpfile();
    profiled_modes_csv(mode, 1, stream);
    char *text = read_back(stream);
    assert_non_null(strstr(text, ",sink_bytes,f16_bytes,int8_bytes\n"));
    assert_int_equal(count(text, "\n"), mode->profile.n_steps + 1);
    free(text);
}

/* Strings of the user's are text in the page, whatever they hold. */
static void check_html(ProfiledMode *mode) {
    cJSON *summary = cJSON_CreateObject(), *modes = cJSON_AddArrayToObject(summary, "modes");
    cJSON_AddStringToObject(summary, "name", "run");
    cJSON_AddStringToObject(summary, "missing", "a & b");
    cJSON_AddStringToObject(mode->report, "text", "<script>\"");
    cJSON_AddItemReferenceToArray(modes, mode->report);
    FILE *stream = tmpfile();
    report_html(summary, stream);
    char *text = read_back(stream);
    assert_int_equal(count(text, "<script>"), 0);
    assert_int_equal(count(text, "&lt;script&gt;&quot;"), 1);
    assert_int_equal(count(text, "a &amp; b"), 1);
    assert_int_equal(count(text, "<td>attention</td>"), 2); /* prompt and decode */
    assert_int_equal(count(text, "<table>"), count(text, "</table>"));
    cJSON_Delete(summary);
    free(text);
}

static void test_files(void **state) {
    (void)state;
    Error error = {0};
    Run run;
    ProfiledMode mode;
    run_open(&run, true);
    assert_int_equal(profiled_mode_take(&mode, &run.profile, &run.context.cache, &run.model.checkpoint.config,
                                        &(ProfileRoofs){1e9, 1e9}, cJSON_CreateObject(), &error),
                     0);
    KvLedger ledger;
    kv_ledger(&run.context.cache, &ledger);
    size_t held = 0;
    for (size_t i = 0; i < ledger.n_rows; i++)
        held += ledger.rows[i].bytes_held;
    assert_int_equal(profiled_mode_held(&mode, mode.profile.n_steps - 1), held);
    check_trace(&mode);
    check_csv(&mode);
    check_html(&mode);
    profiled_mode_free(&mode);
    run_close(&run);
}

static void test_sweep_depths(void **state) {
    (void)state;
    SizeList depths;
    sweep_depths(8192, 300, &depths);
    const size_t deep[] = {0, 512, 2048, 8192 - SWEEP_PROMPT_TOKENS - SWEEP_GENERATE_TOKENS};
    assert_int_equal(depths.count, 4);
    assert_memory_equal(depths.items, deep, sizeof deep);
    sweep_depths(8192, 0.1, &depths); /* a large model on a small machine */
    assert_int_equal(depths.count, 1);
    sweep_depths(50, 300, &depths); /* no room for more */
    assert_int_equal(depths.count, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off),  cmocka_unit_test(test_changes_nothing), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_sums), cmocka_unit_test(test_files),           cmocka_unit_test(test_sweep_depths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
