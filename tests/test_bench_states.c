/* A benchmark whose later repetitions begin with what the first one kept, on the CPU and on a (simulated) GPU: its
 * caches hold byte for byte what a model fills them with, and its counters are still those of the plan. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "cuda/backend.h"
#include "eval/bench/run.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_CTX = 512, N_PROMPT = 11, N_GENERATE = 2 };

static const char *const POLICIES[] = {
    "sink=4,f16:32,int8:*",
    "@0:f16:*;@*:sink=3,f16:0,int8:32,q4_0:*",
    "sink=16,f16:64",
    "f16:*",
};

enum { N_POLICIES = sizeof POLICIES / sizeof *POLICIES };

typedef int OpenBackend(Backend **out, SimdLevel level, int n_threads, Error *error);

typedef struct Run {
    Model model;
    Bench bench;
} Run;

static void run_bench(Run *run, OpenBackend *open, size_t n_policies, size_t deepest, size_t n_repetitions) {
    Error error = {0};
    Backend *backend;
    KvPolicy policies[N_POLICIES];
    *run = (Run){.bench = {.depths = {{deepest / 4, deepest}, 2},
                           .n_prompt = N_PROMPT,
                           .n_generate = N_GENERATE,
                           .n_repetitions = n_repetitions}};
    assert_int_equal(open(&backend, cpu_best_simd_level(), 1, &error), 0);
    assert_int_equal(model_open(&run->model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), backend, &error), 0);
    for (size_t i = 0; i < n_policies; i++) {
        policies[i] = (KvPolicy){.group = 32};
        assert_int_equal(kv_policy_parse(POLICIES[i], &policies[i], &error), 0);
    }
    run->bench.model = &run->model;
    if (bench_open(&run->bench, policies, n_policies, N_CTX, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(run->bench.keeps_states, n_repetitions > 1);
    if (bench_run(&run->bench, &error) < 0)
        fail_msg("%s", error.message);
}

static void run_close(Run *run) {
    bench_close(&run->bench);
    model_close(&run->model);
}

static void check_same(const Context *kept, const Context *filled, size_t n_tokens, const char *policy) {
    Error error = {0};
    const KvCache *a = &kept->cache, *b = &filled->cache;
    const KvMemory memory = context_memory(kept), other_memory = context_memory(filled);
    assert_int_equal(a->n_tokens, n_tokens);
    assert_int_equal(b->n_tokens, n_tokens);
    size_t n = kv_pieces(&a->layout, a->n_tokens, NULL);
    KvPiece *pieces = calloc(n, sizeof *pieces);
    kv_pieces(&a->layout, a->n_tokens, pieces);
    for (size_t i = 0; i < n; i++) {
        uint8_t *bytes = malloc(2 * pieces[i].size_bytes), *others = bytes + pieces[i].size_bytes;
        assert_int_equal(kv_piece_save(a, &pieces[i], &memory, bytes, &error), 0);
        assert_int_equal(kv_piece_save(b, &pieces[i], &other_memory, others, &error), 0);
        if (memcmp(bytes, others, pieces[i].size_bytes) != 0)
            fail_msg("%s: store %zu, positions %zu to %zu", policy, pieces[i].store, pieces[i].begin, pieces[i].end);
        free(bytes);
    }
    free(pieces);
}

/* The last of two repetitions, and the only one. */
static void check_restored(OpenBackend *open, size_t n_policies, size_t deepest) {
    Run kept, filled;
    run_bench(&kept, open, n_policies, deepest, 2);
    run_bench(&filled, open, n_policies, deepest, 1);
    assert_true(kept.bench.keeps_states);
    for (size_t i = 0; i < n_policies; i++) {
        assert_int_equal(kept.bench.modes[i].n_restored, deepest);
        assert_int_equal(filled.bench.modes[i].n_restored, 0);
        check_same(&kept.bench.modes[i].context, &filled.bench.modes[i].context, deepest + N_GENERATE + N_PROMPT,
                   POLICIES[i]);
    }
    run_close(&kept);
    run_close(&filled);
}

static void test_of_the_cpu(void **state) {
    (void)state;
    check_restored(cpu_backend_open, N_POLICIES, 300);
}

static void test_of_a_gpu(void **state) {
    (void)state;
    check_restored(cuda_backend_open, 2, 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_of_the_cpu), cmocka_unit_test(test_of_a_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
