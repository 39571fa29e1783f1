/* Files of base logits: what comes back is within the step that they are rounded to, and no damaged or foreign file is
 * believed. */
#include "eval/perplexity/base_logits.h"
#include "tests/fixture_files.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_ROWS = 7, N_VOCAB = 301, HEADER_BYTES = 48 };

static const BaseLogitsKey KEY = {.model = 0x1234567890abcdef, .tokens = 42, .n_vocab = N_VOCAB, .n_rows = N_ROWS};
static float logits[N_ROWS][N_VOCAB];
static double nll[N_ROWS];
static char path[64];

static uint32_t random_state = 1;

static float random_number(void) {
    random_state = random_state * 1664525 + 1013904223;
    return (float)(random_state >> 8) / (float)(1 << 24);
}

/* Rows of very different ranges: 0 (all logits alike), small, usual, huge; and one far from zero. */
static void fill_rows(void) {
    const float sizes[N_ROWS] = {0, 1e-6f, 1, 30, 1e4f, 5, 20}, offsets[N_ROWS] = {3, 0, 0, -7, 0, 1e4f, 0};
    for (size_t i = 0; i < N_ROWS; i++) {
        nll[i] = 1.0 / (double)(3 + i);
        for (size_t v = 0; v < N_VOCAB; v++)
            logits[i][v] = offsets[i] + sizes[i] * (random_number() - 0.5f);
    }
}

static int save(const char *to, Error *error) {
    BaseLogits file;
    if (base_logits_create(&file, to, &KEY, error) < 0)
        return error->code;
    int status = base_logits_write(&file, logits[0], nll, 3, error);
    if (status == 0)
        status = base_logits_write(&file, logits[3], nll + 3, N_ROWS - 3, error);
    if (status == 0)
        status = base_logits_commit(&file, error);
    base_logits_close(&file);
    return status;
}

static int set_up(void **state) {
    (void)state;
    Error error = {0};
    snprintf(path, sizeof path, "/tmp/stowkv-base-XXXXXX");
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    fill_rows();
    return save(path, &error);
}

static int tear_down(void **state) {
    (void)state;
    return unlink(path);
}

/* The step is range / 65535, and a code is off by half of one. In F32 the largest log-probability, the product of code
 * and step, and their difference are each rounded once, by 2^-24 of themselves (the step too, which is in the product);
 * none is larger than the smallest log-probability's magnitude. */
static void check_row(const float *row, const float *back) {
    double max = -INFINITY, min = INFINITY, sum = 0;
    for (size_t v = 0; v < N_VOCAB; v++) {
        max = fmax(max, (double)row[v]);
        min = fmin(min, (double)row[v]);
    }
    for (size_t v = 0; v < N_VOCAB; v++)
        sum += exp((double)row[v] - max);
    double smallest = min - max - log(sum), step = (max - min) / 65535;
    double tolerance = 0.5 * step + 4 * FLT_EPSILON / 2 * fabs(smallest);
    for (size_t v = 0; v < N_VOCAB; v++) {
        double expected = (double)row[v] - max - log(sum), error = fabs((double)back[v] - expected);
        if (!(error <= tolerance))
            fail_msg("log-probability %.9g comes back as %.9g; expected within %.2e", expected, (double)back[v],
                     tolerance);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    static float back[N_ROWS][N_VOCAB];
    double back_nll[N_ROWS];
    Error error = {0};
    BaseLogits file;
    assert_int_equal(base_logits_open(&file, path, &KEY, &error), 0);
    assert_int_equal(file.in.size, base_logits_size(&KEY));
    assert_int_equal(base_logits_size(&KEY), HEADER_BYTES + N_ROWS * ((24 + 2 * N_VOCAB + 7) / 8 * 8));
    assert_int_equal(base_logits_read(&file, back[0], back_nll, 5, &error), 0); /* cut otherwise than when written */
    assert_int_equal(base_logits_read(&file, back[5], back_nll + 5, N_ROWS - 5, &error), 0);
    assert_memory_equal(back_nll, nll, sizeof nll);
    for (size_t i = 0; i < N_ROWS; i++)
        check_row(logits[i], back[i]);
    base_logits_close(&file);
    base_logits_close(&file);
}

/* Opens the file that is there, and reads all of it. */
static int read_all(const char *from, const BaseLogitsKey *key, Error *error) {
    static float back[N_ROWS][N_VOCAB];
    double back_nll[N_ROWS];
    BaseLogits file;
    int status = base_logits_open(&file, from, key, error);
    if (status == 0)
        status = base_logits_read(&file, back[0], back_nll, N_ROWS, error);
    base_logits_close(&file);
    return status;
}

static void expect_whole(void) {
    Error error = {0};
    if (read_all(path, &KEY, &error) < 0)
        fail_msg("%s", error.message);
}

static void expect_refusal(const BaseLogitsKey *key, int code, const char *text) {
    Error error = {0};
    assert_int_equal(read_all(path, key, &error), code);
    if (strstr(error.message, text) == NULL || strstr(error.message, path) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, text);
}

static void test_foreign_files(void **state) {
    (void)state;
    Error error = {0};
    BaseLogitsKey model = KEY, vocabulary = KEY, tokens = KEY, rows = KEY;
    model.model++;
    vocabulary.n_vocab++;
    tokens.tokens++;
    rows.n_rows--;
    expect_whole();
    expect_refusal(&model, ERROR_ARGUMENT, "another model");
    expect_refusal(&vocabulary, ERROR_ARGUMENT, "another model");
    expect_refusal(&tokens, ERROR_ARGUMENT, "another text");
    expect_refusal(&rows, ERROR_ARGUMENT, "another text");
    assert_int_equal(read_all("/etc/passwd", &KEY, &error), ERROR_FORMAT);
    assert_non_null(strstr(error.message, "no base logits"));
    assert_int_equal(read_all("/tmp/stowkv-no-such-file", &KEY, &error), ERROR_IO);
}

static void flip(long offset) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_true(byte != EOF);
    fseek(file, offset, SEEK_SET);
    fputc(byte ^ 0x10, file);
    assert_int_equal(fclose(file), 0);
}

/* Each byte of the header, and of a row its checksum, nll, maximum, step, first and last code and padding. */
static void test_damaged_files(void **state) {
    (void)state;
    long row_bytes = (long)(base_logits_size(&KEY) - HEADER_BYTES) / N_ROWS;
    for (long at = 0; at < HEADER_BYTES; at++) {
        flip(at);
        expect_refusal(&KEY, ERROR_FORMAT, at < 8 ? "no base logits" : "the header is damaged");
        flip(at);
    }
    const long offsets[] = {0, 8, 16, 20, 24, 24 + 2 * N_VOCAB - 1, row_bytes - 1};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        flip(HEADER_BYTES + 4 * row_bytes + offsets[i]);
        expect_refusal(&KEY, ERROR_FORMAT, "position 4 is damaged");
        flip(HEADER_BYTES + 4 * row_bytes + offsets[i]);
    }
    expect_whole();
}

static void test_cut_files(void **state) {
    (void)state;
    size_t whole = base_logits_size(&KEY);
    const size_t sizes[] = {whole + 1, whole - 1, HEADER_BYTES + 100, HEADER_BYTES, HEADER_BYTES - 1, 8, 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(path, (off_t)sizes[i]), 0);
        expect_refusal(&KEY, ERROR_FORMAT, sizes[i] < HEADER_BYTES ? "no base logits" : "the file is cut");
    }
    assert_int_equal(truncate(path, 0), 0);
    expect_refusal(&KEY, ERROR_FORMAT, "empty");
    Error error = {0};
    assert_int_equal(save(path, &error), 0);
    expect_whole();
}

static void test_full_disk_and_bad_paths(void **state) {
    (void)state;
    Error error = {0};
    assert_int_equal(save("/dev/full", &error), ERROR_IO);
    assert_non_null(strstr(error.message, "/dev/full: No space left on device; base logits of this run take"));
    assert_int_equal(save("/tmp/stowkv-no-such-folder/file", &error), ERROR_IO);
    assert_non_null(strstr(error.message, "cannot be written"));
}

/* Without a commit nothing is left, and what was there stays. */
static void test_uncommitted_files(void **state) {
    (void)state;
    Error error = {0};
    BaseLogits file;
    assert_int_equal(base_logits_create(&file, path, &KEY, &error), 0);
    assert_int_equal(base_logits_write(&file, logits[0], nll, 2, &error), 0);
    base_logits_close(&file);
    expect_whole();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),        cmocka_unit_test(test_foreign_files),
        cmocka_unit_test(test_damaged_files),     cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_uncommitted_files), cmocka_unit_test(test_full_disk_and_bad_paths),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
