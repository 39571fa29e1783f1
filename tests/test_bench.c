/* The arithmetic of a benchmark: break-even on made-up curves, medians, lists of depths, bytes of weights; and that the
 * bandwidth measurement reads every byte, on every instruction set of this machine. */
#include "base/simd/detect.h"
#include "eval/bench/bandwidth.h"
#include "eval/bench/bandwidth_sum.h"
#include "eval/bench/depths.h"
#include "eval/bench/figures.h"
#include "eval/bench/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * fmax(1, fabs(b));
}

/* Curves of milliseconds a token; NAN is "never". */
static void test_break_even(void **state) {
    (void)state;
    static const double DEPTHS[] = {0, 2048, 8192};
    static const struct {
        const char *what;
        double full_ms[3], policy_ms[3], expected;
    } CASES[] = {
        /* 10 + depth / 1000 and 12 + depth / 2000 cross at 4000. */
        {"straight lines", {10, 12.048, 18.192}, {12, 13.024, 16.096}, 4000},
        {"before the second depth", {10, 12.048, 18.192}, {11, 12.024, 15.096}, 2000},
        {"faster from the first on", {10, 12, 18}, {9, 11, 15}, 0},
        {"never", {10, 12, 18}, {11, 13, 19}, NAN},
        {"never, though in between", {10, 12, 18}, {11, 11, 19}, NAN},
        {"faster, slower, faster: the last time counts", {10, 12, 18}, {9, 13, 17}, 2048 + 6144 / 2.0},
        {"equal everywhere is not faster", {10, 12, 18}, {10, 12, 18}, NAN},
        {"equal at a measured depth", {10, 12, 18}, {11, 12, 17}, 2048},
    };
    for (size_t i = 0; i < COUNT(CASES); i++) {
        double full[3], policy[3];
        for (size_t d = 0; d < 3; d++) {
            full[d] = 1000 / CASES[i].full_ms[d];
            policy[d] = 1000 / CASES[i].policy_ms[d];
        }
        double depth = bench_break_even(DEPTHS, full, policy, 3);
        if (isnan(CASES[i].expected) ? !isnan(depth) : !near(depth, CASES[i].expected))
            fail_msg("%s: %g, expected %g", CASES[i].what, depth, CASES[i].expected);
    }
    assert_true(near(bench_break_even((double[]){512}, (double[]){40}, (double[]){41}, 1), 512));
    assert_true(isnan(bench_break_even((double[]){512}, (double[]){41}, (double[]){40}, 1)));
    assert_true(isnan(bench_break_even(DEPTHS, NULL, NULL, 0)));
}

static void test_summaries(void **state) {
    (void)state;
    BenchSummary odd = bench_summarise((double[]){50, 30, 40}, 3);
    assert_true(near(odd.median, 40) && near(odd.min, 30) && near(odd.max, 50) && near(odd.spread, 0.5));
    BenchSummary even = bench_summarise((double[]){10, 40, 20, 40}, 4);
    assert_true(near(even.median, 30) && near(even.spread, 1));
    BenchSummary one = bench_summarise((double[]){7}, 1);
    assert_true(near(one.median, 7) && near(one.spread, 0));
}

static void test_depths(void **state) {
    (void)state;
    Error error = {0};
    SizeList depths;
    assert_int_equal(bench_depths_parse("0,576,8192", 576, &depths, &error), 0);
    assert_int_equal(depths.count, 3);
    assert_int_equal(depths.items[1], 576);
    assert_int_equal(depths.items[2], 8192);
    assert_int_equal(bench_depths_parse("300", 576, &depths, &error), 0);
    assert_int_equal(depths.count, 1);
    static const struct {
        const char *text, *message;
    } BAD[] = {
        {"", "character 1"},
        {"a", "character 1"},
        {"0,,5", "character 3"},
        {"0,", "character 3"},
        {",0", "character 1"},
        {"0;2048", "character 2"},
        {"0, 2048", "character 3"},
        {"-1", "character 1"},
        {"+1", "character 1"},
        {"1e3", "character 2"},
        {"268435457", "268435456"},
        {"99999999999999999999999", "character 1"},
        {"2048,0", "0 comes after 2048"},
        {"0,0", "0 comes after 0"},
        {"0,575", "or 576 for the next depth"},
        {"0,2048,2049", "or 2624 for the next depth"},
    };
    for (size_t i = 0; i < COUNT(BAD); i++) {
        int status = bench_depths_parse(BAD[i].text, 576, &depths, &error);
        if (status != ERROR_USAGE || strstr(error.message, BAD[i].message) == NULL)
            fail_msg("'%s': %d, %s", BAD[i].text, status, error.message);
    }
    char many[4 * SIZE_LIST_MAX + 8] = "1";
    for (size_t i = 2; i <= SIZE_LIST_MAX + 1; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), ",%zu", i);
    assert_int_equal(bench_depths_parse(many, 1, &depths, &error), ERROR_USAGE);
}

static void test_default_depths(void **state) {
    (void)state;
    static const struct {
        size_t n_ctx, count, depths[3];
    } CASES[] = {
        {131072, 3, {0, 2048, 8192}},
        {8768, 3, {0, 2048, 8192}},
        {8192, 3, {0, 2048, 7616}},
        {3199, 2, {0, 2048}},
        {2048, 2, {0, 1472}},
        {1151, 1, {0}},
        {512, 1, {0}},
    };
    for (size_t i = 0; i < COUNT(CASES); i++) {
        SizeList depths;
        bench_depths_default(CASES[i].n_ctx, 576, &depths);
        assert_int_equal(depths.count, CASES[i].count);
        for (size_t d = 0; d < depths.count; d++)
            assert_int_equal(depths.items[d], CASES[i].depths[d]);
    }
}

static void test_tokens(void **state) {
    (void)state;
    for (size_t i = 0; i < 64; i++) {
        int32_t token = bench_token((size_t)1 << i, 49152);
        assert_true(token >= 0 && token < 49152);
    }
    assert_int_equal(bench_token(100, 49152), (7 * 10000 + 1300 + 11) % 49152);
}

/* Matrices of made-up sizes: a token reads all of each, but one row of the embedding. */
static void test_weights_bytes(void **state) {
    (void)state;
    Tensor matrix = {.shape = {64, 8, 1, 1}, .size_bytes = 1000}, none = {0};
    LayerWeights layer = {.attn_norm = matrix,
                          .attn_q = matrix,
                          .attn_k = matrix,
                          .attn_v = matrix,
                          .attn_q_bias = {.size_bytes = 1},
                          .attn_k_bias = {.size_bytes = 2},
                          .attn_v_bias = {.size_bytes = 4},
                          .attn_output = matrix,
                          .ffn_norm = matrix,
                          .ffn_gate = matrix,
                          .ffn_up = matrix,
                          .ffn_down = matrix};
    LayerWeights layers[] = {layer, layer, layer};
    ModelConfig config = {.n_layers = 3};
    Weights weights = {.token_embd = {.shape = {64, 100, 1, 1}, .size_bytes = 7000},
                       .output_norm = {.size_bytes = 20},
                       .output = {.size_bytes = 3000},
                       .rope_freqs = {.size_bytes = 100000},
                       .layers = layers};
    assert_int_equal(weights_bytes_per_token(&weights, &config), 70 + 20 + 3000 + 3 * (9 * 1000 + 7));
    weights.output = weights.token_embd;
    config.n_layers = 1;
    assert_int_equal(weights_bytes_per_token(&weights, &config), 70 + 20 + 7000 + 9 * 1000 + 7);
    layers[0].attn_q_bias = layers[0].attn_k_bias = layers[0].attn_v_bias = none;
    assert_int_equal(weights_bytes_per_token(&weights, &config), 70 + 20 + 7000 + 9 * 1000);
}

static void test_sums(void **state) {
    (void)state;
    static BandwidthSum *const SUMS[SIMD_LEVEL_COUNT] = SIMD_TABLE(bandwidth_sum);
    enum { N = 1280 };
    float x[N];
    double expected = 0;
    for (size_t i = 0; i < N; i++) {
        x[i] = (float)(i * i % 37);
        expected += (double)x[i];
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        assert_true((double)SUMS[level](x, N) == expected);
}

static void test_bandwidth(void **state) {
    (void)state;
    Error error = {0};
    Bandwidth b;
    if (bandwidth_measure(2, cpu_best_simd_level(), &b, &error) < 0)
        fail_msg("%s", error.message);
    assert_true(b.all_threads > 1e7 && b.all_threads < 1e14 && b.one_thread > 1e7 && b.one_thread < 1e14);
    assert_int_equal(b.n_threads, 2);
    assert_true(b.buffer_bytes > 0 && b.buffer_bytes % (1 << 20) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_break_even),     cmocka_unit_test(test_summaries), cmocka_unit_test(test_depths),
        cmocka_unit_test(test_default_depths), cmocka_unit_test(test_tokens),    cmocka_unit_test(test_weights_bytes),
        cmocka_unit_test(test_sums),           cmocka_unit_test(test_bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
