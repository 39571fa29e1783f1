/* Attention against hand-computed one-hot cases and against double precision, on every instruction set. */
#include "attention/attention.h"
#include "model/base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX_DIM    256
#define MAX_TOKENS 321
#define MAX_GROUP  16

static uint16_t keys[MAX_TOKENS * MAX_DIM], values[MAX_TOKENS * MAX_DIM];
static float q[MAX_GROUP * MAX_DIM], out[MAX_GROUP * MAX_DIM];

static float random_normal(void) {
    static uint64_t state = 1;
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        sum += (double)(state >> 33) / 0x1p31;
    }
    return (float)(sum - 6);
}

/* Key t points along axis t, so a long query along axis t makes the softmax exactly one-hot: out is value t. */
static void test_one_hot(void **state) {
    (void)state;
    enum { DIM = 64, TOKENS = 64 };
    for (int i = 0; i < TOKENS * DIM; i++) {
        keys[i] = half_from_float(i / DIM == i % DIM ? 1.0f : 0.0f);
        values[i] = half_from_float((float)(i % 2039));
    }
    for (SimdLevel level = SIMD_SCALAR; level <= cpu_best_simd_level(); level++)
        for (size_t chosen = 0; chosen < TOKENS; chosen++)
            for (size_t n_group = 1; n_group <= 5; n_group++) {
                for (size_t i = 0; i < n_group * DIM; i++)
                    q[i] = i % DIM == (chosen + i / DIM) % TOKENS ? 4000.0f : 0.0f; /* e^(-4000/8): 0 beside 1 */
                KvSpan span = {keys, values, TOKENS};
                attention_kernel(level)(&span, 1, q, n_group, DIM, out);
                for (size_t i = 0; i < n_group * DIM; i++)
                    assert_true(out[i] == (float)(((chosen + i / DIM) % TOKENS * DIM + i % DIM) % 2039));
            }
}

/* softmax(q K^T / sqrt(d)) V in double; weights also go out, for the error bound. */
static void reference(const float *query, size_t n_tokens, size_t head_dim, double *expected, double *magnitude) {
    static double weights[MAX_TOKENS];
    double max = -INFINITY, sum = 0;
    for (size_t t = 0; t < n_tokens; t++) {
        double score = 0;
        for (size_t d = 0; d < head_dim; d++)
            score += (double)query[d] * (double)half_to_float(keys[t * head_dim + d]);
        weights[t] = score / sqrt((double)head_dim);
        max = fmax(max, weights[t]);
    }
    for (size_t t = 0; t < n_tokens; t++)
        sum += weights[t] = exp(weights[t] - max);
    for (size_t d = 0; d < head_dim; d++) {
        expected[d] = magnitude[d] = 0;
        for (size_t t = 0; t < n_tokens; t++) {
            double term = weights[t] / sum * (double)half_to_float(values[t * head_dim + d]);
            expected[d] += term;
            magnitude[d] += fabs(term);
        }
    }
}

/* A score is a sum of head_dim F32 products of size |q||k|/sqrt(d), below 40 here: its error is below
 * head_dim * 2^-24 * 40, and a weight's relative error is that of its score. Sums over tokens add n_tokens * 2^-24. */
static void check_random(SimdLevel level, size_t head_dim, size_t n_group, const size_t *span_tokens, size_t n_spans) {
    size_t n_tokens = 0;
    KvSpan spans[2];
    for (size_t s = 0; s < n_spans; s++) {
        spans[s] = (KvSpan){keys + n_tokens * head_dim, values + n_tokens * head_dim, span_tokens[s]};
        n_tokens += span_tokens[s];
    }
    for (size_t i = 0; i < n_tokens * head_dim; i++) {
        keys[i] = half_from_float(random_normal());
        values[i] = half_from_float(random_normal());
    }
    for (size_t i = 0; i < n_group * head_dim; i++)
        q[i] = random_normal() * 2;
    attention_kernel(level)(spans, n_spans, q, n_group, head_dim, out);
    double tolerance = ((double)head_dim * 40 + (double)n_tokens) * 0x1p-24;
    for (size_t h = 0; h < n_group; h++) {
        double expected[MAX_DIM], magnitude[MAX_DIM];
        reference(q + h * head_dim, n_tokens, head_dim, expected, magnitude);
        for (size_t d = 0; d < head_dim; d++)
            if (!(fabs((double)out[h * head_dim + d] - expected[d]) <= tolerance * magnitude[d]))
                fail_msg("%s, head_dim %zu, %zu heads, %zu tokens: %.9g, expected %.9g", simd_level_name(level), head_dim,
                         n_group, n_tokens, (double)out[h * head_dim + d], expected[d]);
    }
}

static void test_random_against_double(void **state) {
    (void)state;
    const size_t dims[] = {8, 16, 32, 48, 64, 80, 96, 128, 256}, lengths[] = {1, 2, 7, 63, 64, 65, 128, 320};
    for (SimdLevel level = SIMD_SCALAR; level <= cpu_best_simd_level(); level++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
                check_random(level, dims[i], 1 + (i + j) % MAX_GROUP, &lengths[j], 1);
}

static void test_several_spans(void **state) {
    (void)state;
    const size_t cases[][2] = {{1, 1}, {16, 100}, {64, 64}, {0, 5}, {5, 0}};
    for (SimdLevel level = SIMD_SCALAR; level <= cpu_best_simd_level(); level++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            check_random(level, 64, 3, cases[i], 2);
}

static void test_nan_is_not_hidden(void **state) {
    (void)state;
    for (SimdLevel level = SIMD_SCALAR; level <= cpu_best_simd_level(); level++) {
        size_t n = 70;
        check_random(level, 64, 1, &n, 1);
        keys[64 * 67] = 0x7e00;
        KvSpan span = {keys, values, n};
        attention_kernel(level)(&span, 1, q, 1, 64, out);
        assert_true(isnan(out[0]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_hot),
        cmocka_unit_test(test_random_against_double),
        cmocka_unit_test(test_several_spans),
        cmocka_unit_test(test_nan_is_not_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
