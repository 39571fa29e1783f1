/* Per-channel INT8 as kv_quant_bench measures it: the reference against answers known by hand, and every variant of the
 * host against the reference. */
#include "tests/channel_cases.h"

#include "channel_int8/code.h"
#include "channel_int8/cpu.h"
#include "channel_int8/cpu_steps.h"
#include "channel_int8/reference.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

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

static void test_copies(void **state) {
    (void)state;
    ChannelDevice *device = open_cpu(2);
    Error error = {0};
    double bytes_per_second = 0;
    ((ChannelCpu *)device)->decoded_bytes = 4 << 20;
    assert_int_equal(device->ops->measure_copies(device, &bytes_per_second, &error), 0);
    assert_true(bytes_per_second > 1e6);
    device->ops->close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_error_is_bounded),
        cmocka_unit_test(test_variants_match_reference),
        cmocka_unit_test(test_large_matrices),
        cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
