/* A benchmark whose later repetitions begin with what the first one kept: its caches hold byte for byte what a model
 * fills them with, and its counters are still those of the plan. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "eval/bench/run.h"
#include "kvcache/policy_text.h"
#include "kvcache/snapshot.h"
#include "tests/fixture_files.h"
#include "tests/model_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_CTX = 512, N_PROMPT = 20, N_GENERATE = 13 };

static const char *const POLICIES[] = {
    "f16:*",
    "sink=4,f16:32,int8:*",
    "sink=16,f16:64",
    "@0:f16:*;@*:sink=3,f16:16,int8:64,q4_0:*",
};

#define N_POLICIES (sizeof POLICIES / sizeof *POLICIES)

typedef struct Run {
    ModelCase c;
    Model model;
    Bench bench;
} Run;

/* Two repetitions at depths 70 and 300. */
static void run_bench(Run *run, bool keeps_states) {
    Error error = {0};
    Backend *backend;
    KvPolicy policies[N_POLICIES];
    *run =
        (Run){.bench = {.depths = {{70, 300}, 2}, .n_prompt = N_PROMPT, .n_generate = N_GENERATE, .n_repetitions = 2}};
    assert_true(model_case_load(&run->c, fixture_path("STOWKV_FIXTURES", "models/f32.tokens")));
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    assert_int_equal(model_open(&run->model, run->c.path, backend, &error), 0);
    for (size_t i = 0; i < N_POLICIES; i++) {
        policies[i] = (KvPolicy){.group = 32};
        assert_int_equal(kv_policy_parse(POLICIES[i], &policies[i], &error), 0);
    }
    run->bench.model = &run->model;
    if (bench_open(&run->bench, policies, N_POLICIES, N_CTX, &error) < 0)
        fail_msg("%s", error.message);
    assert_true(run->bench.keeps_states);
    run->bench.keeps_states = keeps_states;
    if (bench_run(&run->bench, &error) < 0)
        fail_msg("%s", error.message);
}

static void run_close(Run *run) {
    bench_close(&run->bench);
    model_close(&run->model);
    model_case_free(&run->c);
}

static void check_same(const KvCache *a, const KvCache *b, const char *policy) {
    Error error = {0};
    KvMemory host = {0};
    assert_int_equal(a->n_tokens, 300 + N_GENERATE + N_PROMPT);
    assert_int_equal(b->n_tokens, a->n_tokens);
    size_t n = kv_pieces(&a->layout, a->n_tokens, NULL);
    KvPiece *pieces = calloc(n, sizeof *pieces);
    kv_pieces(&a->layout, a->n_tokens, pieces);
    for (size_t i = 0; i < n; i++) {
        uint8_t *bytes = malloc(2 * pieces[i].size_bytes), *others = bytes + pieces[i].size_bytes;
        assert_int_equal(kv_piece_save(a, &pieces[i], &host, bytes, &error), 0);
        assert_int_equal(kv_piece_save(b, &pieces[i], &host, others, &error), 0);
        if (memcmp(bytes, others, pieces[i].size_bytes) != 0)
            fail_msg("%s: store %zu, positions %zu to %zu", policy, pieces[i].store, pieces[i].begin, pieces[i].end);
        free(bytes);
    }
    free(pieces);
}

static void test_restored_caches(void **state) {
    (void)state;
    Run kept, filled;
    run_bench(&kept, true);
    run_bench(&filled, false);
    assert_true(kept.bench.keeps_states);
    for (size_t i = 0; i < N_POLICIES; i++) {
        assert_int_equal(kept.bench.modes[i].n_restored, 300);
        assert_int_equal(filled.bench.modes[i].n_restored, 0);
        check_same(&kept.bench.modes[i].context.cache, &filled.bench.modes[i].context.cache, POLICIES[i]);
    }
    run_close(&kept);
    run_close(&filled);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_restored_caches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
