/* Per-channel INT8 as kv_quant_bench measures it: the reference against answers known by hand, and every variant of the
 * host against the reference. */
#include "tests/channel_cases.h"

#include "channel_int8/code.h"
#include "channel_int8/cpu.h"
#include "channel_int8/cpu_steps.h"
#include "channel_int8/reference.h"
#include "eval/kv_quant/bench.h"
#include "eval/kv_quant/errors.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Two tokens of each channel: what gives the scale, and another number. */
static void test_known_answers(void **state) {
    (void)state;
    static const struct {
        const char *what;
        float largest, x, scale;
        int8_t largest_code, code;
        float decoded;
    } CASES[] = {
        {"the middle", 127, 0, 1, 127, 0, 0},
        {"the end, negative", -127, 127, 1, -127, 127, 127},
        {"a tie goes to the even code, down", 127, 2.5f, 1, 127, 2, 2},
        {"and up", 127, 3.5f, 1, 127, 4, 4},
        {"and of negative numbers", 127, -2.5f, 1, 127, -2, -2},
        {"the float below a tie", 127, 0x1.bffffep1f, 1, 127, 3, 3},
        {"the float above a tie", 127, 0x1.400002p1f, 1, 127, 3, 3},
        {"another scale", 63.5f, 10.1f, 0.5f, 127, 20, 10},
        {"zeros", 0, -0.0f, 0, 0, 0, 0},
        {"the scale is rounded to 0", 0x1p-149f, 0x1p-149f, 0, 0, 0, 0},
        {"the scale is rounded down by a third", 0x1.7cp-142f, 0x1p-148f, 0x1p-149f, 127, 2, 0x1p-148f},
        {"the largest float", FLT_MAX, -FLT_MAX, 0x1.020406p+121f, 127, -127, -0x1.fffffcp+127f},
        {"infinity", -INFINITY, 1, NAN, 0, 0, NAN},
        {"NaN", NAN, 1, NAN, 0, 0, NAN},
    };
    for (size_t i = 0; i < COUNT(CASES); i++) {
        float keys[2] = {CASES[i].largest, CASES[i].x}, scale, decoded[2];
        int8_t codes[2];
        double largest = 0;
        channel_reference_largest(keys, 2, 1, &largest);
        channel_reference_scales(&largest, 1, &scale);
        channel_reference_codes(keys, &scale, 2, 1, codes);
        channel_reference_decode(codes, &scale, 2, 1, decoded);
        bool is_nan = isnan(CASES[i].scale) && isnan(scale) && isnan(decoded[1]);
        if (codes[0] != CASES[i].largest_code || codes[1] != CASES[i].code ||
            (!is_nan && (scale != CASES[i].scale || decoded[1] != CASES[i].decoded)))
            fail_msg("%s: scale %a, codes %d and %d, decoded %a", CASES[i].what, (double)scale, codes[0], codes[1],
                     (double)decoded[1]);
    }
}

/* No decoded number is further off than half a scale, and the rounding of a product. */
static void test_error_is_bounded(void **state) {
    (void)state;
    for (int i = -20000; i <= 20000; i++) {
        float keys[2] = {1.0f, (float)i / 20000}, scale = channel_scale(channel_magnitude(1.0f));
        int8_t code = channel_code(keys[1], scale, channel_inverse(scale));
        double error = fabs((double)channel_decode(code, scale) - (double)keys[1]);
        assert_true(error <= (double)scale * (0.5 + 0x1p-17));
        assert_int_equal(code, channel_code_exact(keys[1], scale));
    }
}

static ChannelDevice *open_cpu(int n_threads) {
    ChannelDevice *device;
    Error error = {0};
    assert_int_equal(channel_cpu_open(&device, n_threads, &error), 0);
    assert_true(device->n_variants >= 3);
    return device;
}

static void test_variants_match_reference(void **state) {
    (void)state;
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        ChannelDevice *device = open_cpu(n_threads);
        check_channel_variants(device);
        device->ops->close(device);
    }
}

/* As for matrices that no cache holds: results go past the caches, decoded ones round and round in a few places. */
static void test_large_matrices(void **state) {
    (void)state;
    ChannelDevice *device = open_cpu(2);
    device->cache_bytes = 0;
    ((ChannelCpu *)device)->decoded_bytes = 40000;
    check_channel_variants(device);
    device->ops->close(device);
}

/* A line of codes has the bits of the four lines that are read for it. */
static void check_moved_codes(const ChannelCpu *cpu, const uint32_t *keys, size_t n_lines) {
    for (size_t i = 0; i < n_lines * CHANNEL_LINE / sizeof *keys; i++) {
        const uint32_t *lines = keys + i / 16 * CHANNEL_LINE + i % 16;
        uint32_t found;
        memcpy(&found, cpu->codes + i * sizeof found, sizeof found);
        assert_int_equal(found, lines[0] | lines[16] | lines[32] | lines[48]);
    }
}

/* Copies are copies; where lines have no places of their own, each is in its place of a thread, if not overwritten. */
static void check_copied(const ChannelCpu *cpu, const float *keys, size_t n_lines) {
    size_t own = cpu->n_decoded / 2 * cpu->matrix.n_channels / CHANNEL_LINE;
    bool all = cpu->n_decoded == cpu->matrix.n_tokens;
    for (size_t i = 0; i < (all ? n_lines : 2 * own); i++) {
        const float *found = cpu->decoded + i * CHANNEL_LINE;
        size_t line = ((size_t)found[0] - 1) / CHANNEL_LINE;
        if (!all && found[0] == 0)
            continue;
        assert_int_equal(all ? line : line % own, all ? i : i % own);
        assert_memory_equal(found, keys + line * CHANNEL_LINE, CHANNEL_LINE * sizeof *keys);
    }
}

static void check_moves(ChannelDevice *device, const ChannelMatrix *m) {
    Error error = {0};
    size_t n_lines = m->n_tokens * m->n_channels / CHANNEL_LINE;
    assert_int_equal(device->ops->load(device, &device->variants[1], m, &error), 0);
    for (ChannelMove move = 0; move < CHANNEL_MOVE_COUNT; move++) {
        double bytes_per_second = 0;
        assert_int_equal(device->ops->measure_move(device, move, 2, &bytes_per_second, &error), 0);
        assert_true(bytes_per_second > 1e4);
        if (move == CHANNEL_MOVE_CODES)
            check_moved_codes((ChannelCpu *)device, (const uint32_t *)(const void *)m->keys, n_lines);
    }
    check_copied((ChannelCpu *)device, m->keys, n_lines);
    device->ops->unload(device);
}

static void test_plain_loops(void **state) {
    (void)state;
    enum { N_TOKENS = 501, N_CHANNELS = 70 };
    static float keys[N_TOKENS * N_CHANNELS];
    for (size_t i = 0; i < COUNT(keys); i++)
        keys[i] = (float)(i + 1);
    ChannelMatrix m = {keys, N_TOKENS, N_CHANNELS};
    ChannelDevice *device = open_cpu(2);
    check_moves(device, &m);
    device->cache_bytes = 0;
    ((ChannelCpu *)device)->decoded_bytes = 40000;
    check_moves(device, &m);
    device->ops->close(device);
}

/* ---- The comparison that every run of the program makes */

/* What a device hands over, with one number of each kind changed. */
static const ChannelDeviceOps *honest;

static int read_wrong_scales(ChannelDevice *device, float *scales, Error *error) {
    int status = honest->read_scales(device, scales, error);
    scales[3] = nextafterf(scales[3], 1);
    return status;
}

static int read_wrong_codes(ChannelDevice *device, size_t first, size_t n, int8_t *codes, Error *error) {
    int status = honest->read_codes(device, first, n, codes, error);
    codes[n * 70 - 1] = (int8_t)(codes[n * 70 - 1] ^ 1);
    return status;
}

static int read_wrong_decoded(ChannelDevice *device, size_t first, size_t n, float *decoded, Error *error) {
    int status = honest->read_decoded(device, first, n, decoded, error);
    decoded[0] += 0.25f;
    return status;
}

static QuantErrors errors_of(ChannelDevice *device, QuantCheck *check, bool half_keys) {
    ChannelVariant variant = device->variants[0];
    QuantErrors errors;
    Error error = {0};
    variant.half_keys = half_keys;
    assert_int_equal(quant_check(check, device, &variant, &errors, &error), 0);
    return errors;
}

static void test_check_counts_what_is_wrong(void **state) {
    (void)state;
    enum { N_TOKENS = 3000, N_CHANNELS = 70 }; /* several blocks of rows */
    static float keys[N_TOKENS * N_CHANNELS];
    ChannelMatrix matrix = {keys, N_TOKENS, N_CHANNELS};
    ChannelDevice *device = open_cpu(2);
    ThreadPool *pool;
    QuantCheck check;
    Error error = {0};
    double ms;
    assert_int_equal(thread_pool_open(&pool, 3, &error), 0);
    quant_fill_keys(pool, 1, N_TOKENS, N_CHANNELS, keys);
    assert_int_equal(quant_check_open(&check, pool, &matrix, 1, &error), 0);
    assert_int_equal(device->ops->load(device, &device->variants[0], &matrix, &error), 0);
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++)
        assert_int_equal(device->ops->run(device, step, 1, &ms, &error), 0);
    QuantErrors right = errors_of(device, &check, false);
    assert_int_equal(right.n_wrong, 0);
    honest = device->ops;
    ChannelDeviceOps wrong = *honest;
    device->ops = &wrong;
    wrong.read_scales = read_wrong_scales;
    assert_int_equal(errors_of(device, &check, false).n_wrong, 1);
    wrong.read_codes = read_wrong_codes;
    assert_int_equal(errors_of(device, &check, false).n_wrong, 2);
    wrong.read_decoded = read_wrong_decoded;
    QuantErrors errors = errors_of(device, &check, false);
    assert_int_equal(errors.n_wrong, 3);
    assert_true(errors.max_abs > 0.24 && errors.l2 > right.l2);
    device->ops = honest;
    assert_true(errors_of(device, &check, true).n_wrong > 0); /* these keys were not rounded to FP16 */
    assert_int_equal(errors_of(device, &check, false).n_wrong, 0);
    quant_check_close(&check);
    thread_pool_close(pool);
    device->ops->close(device);
}

/* Errors of a matrix by a loop of our own. */
static void test_errors(void **state) {
    (void)state;
    enum { N_TOKENS = 5, N_CHANNELS = 2 };
    static const float KEYS[N_TOKENS * N_CHANNELS] = {127, 12.7f, 0.25f, 0, -3.5f, -6.36f, 100.375f, 1, 2, 3};
    static const double ERRORS[N_TOKENS][N_CHANNELS] = {{0, 0}, {0.25, 0}, {0.5, 0.04}, {0.375, 0}, {0, 0}};
    ChannelMatrix matrix = {KEYS, N_TOKENS, N_CHANNELS};
    ChannelDevice *device = open_cpu(1);
    ThreadPool *pool;
    QuantCheck check;
    Error error = {0};
    double ms, squares = 0;
    assert_int_equal(thread_pool_open(&pool, 1, &error), 0);
    assert_int_equal(quant_check_open(&check, pool, &matrix, 1, &error), 0);
    assert_int_equal(device->ops->load(device, &device->variants[1], &matrix, &error), 0);
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++)
        assert_int_equal(device->ops->run(device, step, 1, &ms, &error), 0);
    QuantErrors errors = errors_of(device, &check, false);
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t d = 0; d < N_CHANNELS; d++)
            squares += ERRORS[t][d] * ERRORS[t][d];
    assert_true(fabs(errors.l2 - sqrt(squares)) < 1e-5);
    assert_true(fabs(errors.max_abs - 0.5) < 1e-6);
    double score =
        fabs(0.25 * check.query[0]) + fabs(0.5 * check.query[0] + 0.04 * check.query[1]) + fabs(0.375 * check.query[0]);
    assert_true(fabs(errors.score - score / N_TOKENS) < 1e-5);
    quant_check_close(&check);
    thread_pool_close(pool);
    device->ops->close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_error_is_bounded),
        cmocka_unit_test(test_variants_match_reference),
        cmocka_unit_test(test_large_matrices),
        cmocka_unit_test(test_plain_loops),
        cmocka_unit_test(test_check_counts_what_is_wrong),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
