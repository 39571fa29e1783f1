/* The three definitions of perplexity: windows, scored tokens and weights, by hand on small texts and against the loops
 * that each definition was published with (tests/fixtures/perplexity_cases.py). */
#include "eval/perplexity/windows.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static PplWindows windows_of(PplDefinition definition, size_t n_tokens, size_t context, size_t stride,
                             size_t max_windows) {
    PplWindows windows;
    Error error = {0};
    PplSettings settings = {definition, context, stride, max_windows};
    if (ppl_windows(&settings, n_tokens, &windows, &error) < 0)
        fail_msg("%s", error.message);
    return windows;
}

/* Checks the windows, and frees them. */
static void check_windows(PplWindows windows, const PplWindow *expected, size_t count) {
    size_t n_scored = 0, n_tokens = 0;
    assert_int_equal(windows.count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(windows.items[i].begin, expected[i].begin);
        assert_int_equal(windows.items[i].end, expected[i].end);
        assert_int_equal(windows.items[i].first_target, expected[i].first_target);
        assert_true(windows.items[i].weight == expected[i].weight);
        n_scored += expected[i].end - expected[i].first_target;
        n_tokens += expected[i].end - expected[i].begin;
    }
    assert_int_equal(windows.n_scored, n_scored);
    assert_int_equal(windows.n_tokens, n_tokens);
    ppl_windows_free(&windows);
    assert_null(windows.items);
}

/* 20 tokens in chunks of 8: logits at positions 4, 5, 6 of each predict tokens 5, 6, 7; four tokens are left over. */
static void test_llamacpp_by_hand(void **state) {
    (void)state;
    const PplWindow expected[] = {{0, 8, 5, 3}, {8, 16, 13, 3}};
    check_windows(windows_of(PPL_LLAMACPP, 20, 8, 8, 0), expected, 2);
    check_windows(windows_of(PPL_LLAMACPP, 16, 8, 8, 0), expected, 2);
    check_windows(windows_of(PPL_LLAMACPP, 20, 8, 8, 1), expected, 1);
    check_windows(windows_of(PPL_LLAMACPP, 20, 8, 8, 9), expected, 2);
    const PplWindow odd[] = {{0, 7, 4, 3}, {7, 14, 11, 3}};
    check_windows(windows_of(PPL_LLAMACPP, 20, 7, 7, 0), odd, 2);
}

static void test_gptq_by_hand(void **state) {
    (void)state;
    const PplWindow expected[] = {{0, 8, 1, 8}, {8, 16, 9, 8}};
    check_windows(windows_of(PPL_GPTQ, 20, 8, 8, 0), expected, 2);
    check_windows(windows_of(PPL_GPTQ, 8, 8, 8, 0), expected, 1);
}

/* A window's labels are the tokens behind the former window's end; each window's mean weighs its labels less one. */
static void test_hf_by_hand(void **state) {
    (void)state;
    /* Stride 3: windows end at 8, 11, 14, 17, 20; later ones have 3 labels, all of them predicted. */
    const PplWindow overlapping[] = {{0, 8, 1, 7}, {3, 11, 8, 2}, {6, 14, 11, 2}, {9, 17, 14, 2}, {12, 20, 17, 2}};
    check_windows(windows_of(PPL_HF, 20, 8, 3, 0), overlapping, 5);
    check_windows(windows_of(PPL_HF, 20, 8, 3, 2), overlapping, 2);
    /* Two tokens less: the last window is partial and has the label 17 alone, so that it weighs nothing. */
    const PplWindow partial[] = {{0, 8, 1, 7}, {3, 11, 8, 2}, {6, 14, 11, 2}, {9, 17, 14, 2}, {12, 18, 17, 0}};
    check_windows(windows_of(PPL_HF, 18, 8, 3, 0), partial, 5);
    /* Stride 1: a label a window. */
    const PplWindow dense[] = {{0, 4, 1, 3}, {1, 5, 4, 0}, {2, 6, 5, 0}};
    check_windows(windows_of(PPL_HF, 6, 4, 1, 0), dense, 3);
    /* The stride is the context: the first token of a window has nothing before it, and is a label all the same. */
    const PplWindow apart[] = {{0, 8, 1, 7}, {8, 16, 9, 7}, {16, 20, 17, 3}};
    check_windows(windows_of(PPL_HF, 20, 8, 8, 0), apart, 3);
    const PplWindow one_left[] = {{0, 8, 1, 7}, {8, 9, 9, 0}};
    check_windows(windows_of(PPL_HF, 9, 8, 8, 0), one_left, 2);
    /* A text that is shorter than the context, and one that is as long. */
    const PplWindow shorter[] = {{0, 5, 1, 4}}, two[] = {{0, 2, 1, 1}};
    check_windows(windows_of(PPL_HF, 5, 8, 3, 0), shorter, 1);
    check_windows(windows_of(PPL_HF, 2, 8, 8, 0), two, 1);
    check_windows(windows_of(PPL_HF, 8, 8, 3, 0), overlapping, 1);
}

static void check_mean(PplWindows windows, size_t count, const double *nll, double expected) {
    double mean = ppl_mean_nll(&windows, count, nll);
    if (!(fabs(mean - expected) <= 1e-15 * expected))
        fail_msg("ln(PPL) is %.17g, expected %.17g", mean, expected);
    ppl_windows_free(&windows);
}

static void test_means_by_hand(void **state) {
    (void)state;
    const double nll[] = {1, 2, 6, 3, 5, 10, 4, 8, 2, 7, 1, 3, 9, 2};
    /* llamacpp: all tokens alike. (1+2+6 + 3+5+10) / 6. */
    check_mean(windows_of(PPL_LLAMACPP, 20, 8, 8, 0), 2, nll, 27 / 6.0);
    check_mean(windows_of(PPL_LLAMACPP, 20, 8, 8, 0), 1, nll, 9 / 3.0);
    /* gptq: (8 * (1+2+6+3+5+10+4) / 7 + 8 * (8+2+7+1+3+9+2) / 7) / 16. */
    check_mean(windows_of(PPL_GPTQ, 20, 8, 8, 0), 2, nll, (8 * 31 / 7.0 + 8 * 32 / 7.0) / 16);
    /* hf: 7 * 31/7 for the first; then 3 labels that weigh 2, and in the partial window one that weighs nothing. */
    check_mean(windows_of(PPL_HF, 14, 8, 3, 0), 3, nll, (31 + 2 * 17 / 3.0 + 2 * 13 / 3.0) / (7 + 2 + 2));
    check_mean(windows_of(PPL_HF, 12, 8, 3, 0), 3, nll, (31 + 2 * 17 / 3.0) / (7 + 2));
    check_mean(windows_of(PPL_HF, 14, 8, 3, 0), 2, nll, (31 + 2 * 17 / 3.0) / (7 + 2));
    /* A last window of one token scores nothing. */
    check_mean(windows_of(PPL_HF, 9, 8, 8, 0), 2, nll, 31 / 7.0);
}

static void check_refused(PplDefinition definition, size_t n_tokens, size_t context, size_t stride, ErrorCode code,
                          const char *text) {
    PplWindows windows;
    Error error = {0};
    PplSettings settings = {definition, context, stride, 0};
    assert_int_equal(ppl_windows(&settings, n_tokens, &windows, &error), code);
    assert_null(windows.items);
    if (strstr(error.message, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, text);
}

static void test_refusals(void **state) {
    (void)state;
    check_refused(PPL_HF, 100, 8, 0, ERROR_USAGE, "--stride 0: windows of 8 tokens move by 1 to 8");
    check_refused(PPL_LLAMACPP, 100, 8, 0, ERROR_USAGE, "--stride 0");
    check_refused(PPL_HF, 100, 8, 9, ERROR_USAGE, "--stride 9: windows of 8 tokens move by 1 to 8");
    check_refused(PPL_LLAMACPP, 100, 8, 4, ERROR_USAGE, "--ppl_mode llamacpp do not overlap");
    check_refused(PPL_GPTQ, 100, 8, 4, ERROR_USAGE, "--ppl_mode gptq do not overlap");
    check_refused(PPL_LLAMACPP, 15, 8, 8, ERROR_ARGUMENT,
                  "has 15 tokens, and --ppl_mode llamacpp with a context of 8 needs 16");
    check_refused(PPL_GPTQ, 7, 8, 8, ERROR_ARGUMENT, "has 7 tokens, and --ppl_mode gptq with a context of 8 needs 8");
    check_refused(PPL_HF, 1, 8, 3, ERROR_ARGUMENT, "has 1 tokens, and --ppl_mode hf with a context of 8 needs 2");
    check_refused(PPL_HF, 0, 8, 3, ERROR_ARGUMENT, "needs 2");
}

static void test_names(void **state) {
    (void)state;
    Error error = {0};
    PplDefinition definition;
    for (int i = 0; i < PPL_DEFINITION_COUNT; i++) {
        assert_int_equal(ppl_definition_parse(ppl_definition((PplDefinition)i)->name, &definition, &error), 0);
        assert_int_equal(definition, i);
    }
    assert_int_equal(ppl_definition_parse("llama.cpp", &definition, &error), ERROR_USAGE);
    assert_non_null(strstr(error.message, "did you mean llamacpp?"));
    assert_int_equal(ppl_definition(PPL_LLAMACPP)->default_context, 512);
    assert_int_equal(ppl_definition(PPL_GPTQ)->default_context, 2048);
    assert_true(ppl_definition(PPL_HF)->joins_rows && ppl_definition(PPL_GPTQ)->joins_rows);
    assert_false(ppl_definition(PPL_LLAMACPP)->joins_rows);
}

/* The scored tokens of a window in the order of ppl_mean_nll(), each with the window's own number. */
static size_t gather(const PplWindow *window, const double *table, size_t n, double *nll) {
    size_t count = 0;
    for (size_t position = window->first_target; position < window->end; position++)
        nll[count++] = table[(31 * window->begin + position) % n];
    return count;
}

static void check_case(const char *line, const double *table, size_t n) {
    char name[16];
    size_t n_tokens, context, stride, max_windows, n_scored;
    double expected;
    PplDefinition definition;
    Error error = {0};
    assert_int_equal(sscanf(line, "%15s %zu %zu %zu %zu %lf %zu", name, &n_tokens, &context, &stride, &max_windows,
                            &expected, &n_scored),
                     7);
    assert_int_equal(ppl_definition_parse(name, &definition, &error), 0);
    PplWindows windows = windows_of(definition, n_tokens, context, stride, max_windows);
    double *nll = calloc(windows.n_scored, sizeof *nll);
    size_t count = 0;
    for (size_t i = 0; i < windows.count; i++)
        count += gather(&windows.items[i], table, n, nll + count);
    double perplexity = exp(ppl_mean_nll(&windows, windows.count, nll));
    if (count != n_scored || windows.n_scored != n_scored || !(fabs(perplexity / expected - 1) <= 1e-12))
        fail_msg("%s: PPL %.17g of %zu tokens", line, perplexity, count);
    free(nll);
    ppl_windows_free(&windows);
}

static void test_published_loops(void **state) {
    (void)state;
    size_t size, n_cases = 0;
    double *table = fixture_load(fixture_path("STOWKV_FIXTURES", "perplexity/windows.nll"), &size);
    FILE *file = fopen(fixture_path("STOWKV_FIXTURES", "perplexity/windows.cases"), "r");
    char line[256];
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; n_cases++)
        check_case(line, table, size / sizeof *table);
    assert_int_equal(n_cases, 600);
    fclose(file);
    free(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llamacpp_by_hand), cmocka_unit_test(test_gptq_by_hand), cmocka_unit_test(test_hf_by_hand),
        cmocka_unit_test(test_means_by_hand),    cmocka_unit_test(test_refusals),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_published_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
