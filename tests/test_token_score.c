/* Figures of a series, and what logits say about a token, against numpy in float64
 * (tests/fixtures/perplexity_cases.py). */
#include "eval/perplexity/token_score.h"
#include "eval/statistics.h"
#include "tests/fixture_files.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_near(const char *what, double actual, double expected, double tolerance) {
    if (!(fabs(actual - expected) <= tolerance))
        fail_msg("%s: %.17g, expected %.17g within %.1e", what, actual, expected, tolerance);
}

/* A sum of n doubles in any order is within n * 2^-53 of the sum of magnitudes, and `size` bounds each. */
static void check_series(const double *x, const double *y, size_t n, const double *expected) {
    double size = 0, tolerance;
    double *sorted = malloc(n * sizeof *sorted);
    memcpy(sorted, x, n * sizeof *sorted);
    sort_ascending(sorted, n);
    for (size_t i = 0; i < n; i++) {
        size = fmax(size, fabs(x[i]));
        assert_true(i == 0 || sorted[i - 1] <= sorted[i]);
    }
    tolerance = (double)n * DBL_EPSILON * size;
    MeanError own = mean_error(x, n), paired = mean_error_paired(x, y, n);
    check_near("mean", own.mean, expected[0], tolerance);
    check_near("standard error", own.error, expected[1], tolerance);
    check_near("mean difference", paired.mean, expected[2], tolerance);
    check_near("its standard error", paired.error, expected[3], tolerance);
    check_near("root mean square", root_mean_square(x, n), expected[4], tolerance);
    const double shares[] = {0, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
    for (size_t i = 0; i < 7; i++) /* the rank is rounded, and two neighbours may be the whole range apart */
        check_near("percentile", percentile(sorted, n, shares[i]), expected[5 + i], tolerance + 4 * DBL_EPSILON * size);
    free(sorted);
}

static void test_series_match_numpy(void **state) {
    (void)state;
    size_t size, n_series = 0;
    double *numbers = fixture_load(fixture_path("STOWKV_FIXTURES", "perplexity/statistics"), &size);
    for (const double *at = numbers, *end = numbers + size / sizeof *numbers; at < end; n_series++) {
        size_t n = (size_t)at[0];
        check_series(at + 1, at + 1 + n, n, at + 1 + 2 * n);
        at += 1 + 2 * n + 12;
    }
    assert_int_equal(n_series, 8);
    free(numbers);
}

/* llama.cpp: sqrt((E[x^2] - E[x]^2) / (n - 1)); of 1, 2, 3, 6 that is sqrt((12.5 - 9) / 3). */
static void test_series_by_hand(void **state) {
    (void)state;
    double x[] = {6, 1, 3, 2}, y[] = {5, 0, 2, 1}, deciles[] = {0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
    assert_true(mean_error(x, 4).mean == 3);
    check_near("standard error", mean_error(x, 4).error, sqrt(3.5 / 3), 1e-15);
    assert_true(mean_error_paired(x, y, 4).mean == 1 && mean_error_paired(x, y, 4).error == 0);
    assert_true(mean_error(x, 1).mean == 6 && mean_error(x, 1).error == 0 && mean_error(x, 0).mean == 0);
    check_near("root mean square", root_mean_square(x, 4), sqrt(12.5), 1e-15);
    assert_true(percentile(deciles, 11, 0.9) == 90 && percentile(deciles, 11, 1) == 100);
    check_near("percentile", percentile(deciles, 11, 0.975), 97.5, 1e-13);
}

/* One fixture: rows of logits and what they come to. */
typedef struct Case {
    float *base, *logits; /* (n_rows, n_vocab) */
    int32_t *targets;     /* (n_rows) */
    double (*expected)[4];
    size_t n_rows, n_vocab;
} Case;

static void *load_part(size_t index, const char *part, size_t *size) {
    char name[64];
    snprintf(name, sizeof name, "perplexity/scores/%zu.%s", index, part);
    return fixture_load(fixture_path("STOWKV_FIXTURES", name), size);
}

static Case load_case(size_t index) {
    Case c;
    size_t size;
    c.targets = load_part(index, "targets", &size);
    c.n_rows = size / sizeof *c.targets;
    c.base = load_part(index, "base", &size);
    c.n_vocab = size / sizeof *c.base / c.n_rows;
    c.logits = load_part(index, "logits", &size);
    c.expected = load_part(index, "expected", &size);
    return c;
}

static void free_case(Case *c) {
    free(c->base);
    free(c->logits);
    free(c->targets);
    free(c->expected);
}

/* malloc'd scores of `logits` against `base`, or without a base where it is NULL. */
static TokenScore *scores_of(const Case *c, const float *base, const float *logits, int n_threads) {
    Error error = {0};
    ThreadPool *pool;
    BaseRows rows;
    TokenScore *scores = calloc(c->n_rows, sizeof *scores);
    assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
    assert_int_equal(base_rows_open(&rows, c->n_rows, c->n_vocab, &error), 0);
    if (base != NULL)
        base_rows_set(&rows, pool, base, c->n_rows);
    score_tokens(pool, logits, c->targets, c->n_rows, c->n_vocab, base != NULL ? &rows : NULL, scores);
    base_rows_close(&rows);
    thread_pool_close(pool);
    return scores;
}

static double largest(const float *x, size_t n) {
    double size = 0;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs((double)x[i]));
    return size;
}

/* Of the logarithm of a softmax: a few units in the last place of the largest logit, and n_vocab of them from the sum.
 * Probabilities have the same error, relative to themselves. */
static double tolerance_of(const Case *c) {
    size_t n = c->n_rows * c->n_vocab;
    double size = fmax(largest(c->base, n), largest(c->logits, n));
    return DBL_EPSILON * (8 * size + 2 * (double)c->n_vocab);
}

/* A divergence is a mean, by probabilities, of differences of two logarithms, which differ by twice the range at most.
 */
static void check_scores(const Case *c, const TokenScore *scores) {
    size_t n = c->n_rows * c->n_vocab;
    double tolerance = tolerance_of(c), range = 2 * fmax(largest(c->base, n), largest(c->logits, n));
    for (size_t i = 0; i < c->n_rows; i++) {
        check_near("nll", scores[i].nll, c->expected[i][0], tolerance);
        check_near("kld", scores[i].kld, c->expected[i][1], 2 * tolerance * (1 + range));
        check_near("change of p", scores[i].delta_p, c->expected[i][2], tolerance);
        assert_int_equal(scores[i].same_top, c->expected[i][3] == 1);
    }
}

enum { N_CASES = 10 };

static void test_scores_match_numpy(void **state) {
    (void)state;
    size_t n_same = 0, n_rows = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        Case c = load_case(i);
        TokenScore *scores = scores_of(&c, c.base, c.logits, 2);
        check_scores(&c, scores);
        for (size_t row = 0; row < c.n_rows; row++, n_rows++)
            n_same += scores[row].same_top;
        free(scores);
        free_case(&c);
    }
    assert_true(n_same > 0 && n_same < n_rows);
}

static void test_threads_change_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        Case c = load_case(i);
        TokenScore *one = scores_of(&c, c.base, c.logits, 1);
        const int threads[] = {2, 7};
        for (size_t j = 0; j < 2; j++) {
            TokenScore *many = scores_of(&c, c.base, c.logits, threads[j]);
            for (size_t row = 0; row < c.n_rows; row++)
                assert_true(many[row].nll == one[row].nll && many[row].kld == one[row].kld &&
                            many[row].delta_p == one[row].delta_p && many[row].same_top == one[row].same_top);
            free(many);
        }
        free(one);
        free_case(&c);
    }
}

/* A distribution does not diverge from itself, to the bit; and which is the base matters. */
static void test_divergence_is_zero_and_directed(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        Case c = load_case(i);
        TokenScore *same = scores_of(&c, c.logits, c.logits, 2);
        for (size_t row = 0; row < c.n_rows; row++)
            assert_true(same[row].kld == 0 && same[row].same_top && fabs(same[row].delta_p) <= tolerance_of(&c));
        free(same);
        free_case(&c);
    }
    Case c = load_case(3);
    TokenScore *there = scores_of(&c, c.base, c.logits, 2), *back = scores_of(&c, c.logits, c.base, 2);
    for (size_t row = 0; row < c.n_rows; row++)
        assert_true(there[row].kld > 0 && fabs(back[row].kld / there[row].kld - 1) > 0.01);
    free(there);
    free(back);
    free_case(&c);
}

/* p = (1/2, 1/4, 1/4) against q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2. */
static void test_scores_by_hand(void **state) {
    (void)state;
    float base[] = {(float)log(2), 0, 0}, logits[] = {1, 1 + (float)log(2), 1};
    int32_t target = 1;
    Case c = {base, logits, &target, NULL, 1, 3};
    TokenScore *scores = scores_of(&c, base, logits, 1);
    check_near("nll", scores->nll, log(2), 1e-7); /* the logits are F32 */
    check_near("kld", scores->kld, log(2) / 4, 1e-7);
    check_near("change of p", scores->delta_p, 0.25, 1e-7);
    assert_false(scores->same_top);
    free(scores);
    scores = scores_of(&c, NULL, logits, 1);
    check_near("nll", scores->nll, log(2), 1e-7);
    assert_true(scores->kld == 0 && scores->delta_p == 0);
    free(scores);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_series_match_numpy),     cmocka_unit_test(test_series_by_hand),
        cmocka_unit_test(test_scores_match_numpy),     cmocka_unit_test(test_scores_by_hand),
        cmocka_unit_test(test_threads_change_nothing), cmocka_unit_test(test_divergence_is_zero_and_directed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
