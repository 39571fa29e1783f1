/* Values fitted to what attention adds up of them, against their definition in double precision (fit_values.h): codes,
 * scale and minimum; that decoded numbers are neither nearer to their mean nor further from it than true ones, on the
 * whole; what is gained against the nearest code, and what must not happen with odd numbers. */
#include "base/simd/detect.h"
#include "kvcache/codec/codec.h"
#include "tests/plain_fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_DIM = 128, MAX_TOKENS = 64, MAX_BLOCK = PLAIN_FIT_MOST };

static float values[MAX_TOKENS * MAX_DIM];

static float uniform(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005 + 1442695040888963407;
    return (float)(state >> 40) / (float)(1 << 23) - 1;
}

/* Nearly Gaussian, blocks of different size and mean. */
static void fill_values(size_t n, size_t block) {
    float size = 1, mean = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % block == 0) {
            size = expf(3 * uniform());
            mean = 2 * size * uniform();
        }
        values[i] = mean + size * (uniform() + uniform() + uniform() + uniform());
    }
}

typedef struct Encoded {
    uint8_t record[MAX_TOKENS * MAX_DIM * 4];
    float decoded[MAX_TOKENS * MAX_DIM];
} Encoded;

static void encode(KvCodecId id, SimdLevel level, const KvGroup *group, bool fitted, Encoded *out) {
    memset(out->record, 0xee, sizeof out->record);
    if (fitted)
        kv_codec_encode_fitted(kv_codec(id), level, group, values, out->record);
    else
        kv_codec_encode(kv_codec(id), level, KV_VALUES, group, values, NULL, out->record);
    kv_codec_decoder(kv_codec(id), level)(KV_VALUES, group, out->record, 0, group->n_tokens, out->decoded);
}

/* Returns whether codes were compared. */
static bool check_block(KvCodecId id, const float *x, const float *decoded, size_t n) {
    double exact[MAX_BLOCK];
    for (size_t i = 0; i < n; i++)
        exact[i] = (double)x[i];
    PlainFit fit = plain_fit(exact, n, kv_codec_nominal_bits(kv_codec(id)));
    for (size_t i = 0; i < n && plain_fit_is_clear(&fit); i++)
        if (!plain_fit_agrees(&fit, i, (double)decoded[i]))
            fail_msg("%s, block of %zu: number %zu is %g, and by the definition %g", kv_codec_name(kv_codec(id)), n, i,
                     (double)decoded[i], plain_fit_number(&fit, i));
    return plain_fit_is_clear(&fit);
}

static double squared_error(const KvGroup *group, const Encoded *encoded) {
    double sum = 0;
    for (size_t i = 0; i < group->n_tokens * group->head_dim; i++)
        sum += pow((double)values[i] - (double)encoded->decoded[i], 2);
    return sum;
}

/* What decoded numbers are, on the mean, of a unit that true ones are away from their block's mean. */
static double slope(const KvGroup *group, size_t block, const Encoded *encoded) {
    double product = 0, squares = 0;
    for (size_t i = 0; i < group->n_tokens * group->head_dim; i += block) {
        double x[MAX_BLOCK], mean;
        for (size_t j = 0; j < block; j++)
            x[j] = (double)values[i + j];
        mean = plain_mean(x, block);
        for (size_t j = 0; j < block; j++) {
            product += (x[j] - mean) * ((double)encoded->decoded[i + j] - mean);
            squares += (x[j] - mean) * (x[j] - mean);
        }
    }
    return product / squares;
}

static void check_codec(KvCodecId id, const KvGroup *group, double most) {
    static Encoded nearest, fitted, other;
    size_t n = group->n_tokens * group->head_dim, n_compared = 0;
    size_t block = group->block < group->head_dim ? group->block : group->head_dim;
    fill_values(n, block);
    encode(id, SIMD_SCALAR, group, false, &nearest);
    encode(id, SIMD_SCALAR, group, true, &fitted);
    for (size_t i = 0; i < n; i += block)
        n_compared += check_block(id, values + i, fitted.decoded + i, block);
    assert_true(n_compared * 10 > n / block * 9);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        encode(id, level, group, true, &other);
        assert_memory_equal(other.record, fitted.record, sizeof fitted.record);
    }
    double ratio = squared_error(group, &fitted) / squared_error(group, &nearest), rise = slope(group, block, &fitted);
    if (ratio > most || fabs(rise - 1) > 1e-3)
        fail_msg("%s in blocks of %zu: %g times the squared error of nearest codes, a slope of %g",
                 kv_codec_name(kv_codec(id)), block, ratio, rise);
}

static void test_codes(void **state) {
    (void)state;
    const KvGroup groups[] = {{64, 64, 64, false}, {32, 128, 32, false}, {64, 24, 32, false}, {32, 128, 64, false}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        check_codec(KV_INT3, &groups[i], 0.95);
        check_codec(KV_INT2, &groups[i], 0.75);
    }
}

/* Where sums have no eight columns, codes are the nearest ones. */
static void test_short_rows(void **state) {
    (void)state;
    static Encoded nearest, fitted;
    const KvGroup group = {32, 20, 32, false};
    fill_values(32 * 20, 20);
    encode(KV_INT2, SIMD_SCALAR, &group, false, &nearest);
    encode(KV_INT2, SIMD_SCALAR, &group, true, &fitted);
    assert_memory_equal(fitted.record, nearest.record, sizeof nearest.record);
}

static void test_which_codecs(void **state) {
    (void)state;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        assert_int_equal(kv_codec_is_fitted(kv_codec(id), KV_VALUES), id == KV_INT3 || id == KV_INT2);
}

/* A block that is not finite is lost, and no other with it. */
static void test_values_that_are_not_finite(void **state) {
    (void)state;
    static Encoded encoded;
    const KvGroup group = {32, 128, 32, false};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fill_values(32 * 128, 32);
        values[3 * 128 + 70] = bad[i];
        encode(KV_INT2, SIMD_SCALAR, &group, true, &encoded);
        for (size_t j = 0; j < 32 * 128; j++)
            assert_true(isfinite(encoded.decoded[j]) == (j / 32 != (3 * 128 + 70) / 32));
    }
}

/* What FP16 cannot say as a fitted line is held by its range, as the nearest codes are. */
static void test_odd_blocks(void **state) {
    (void)state;
    static Encoded nearest, fitted;
    const KvGroup group = {32, 64, 64, false};
    const float cases[][2] = {{0, 0},     {1, 0},       {1.0003f, 0}, {1000, 0.1f}, {-60000, 3}, {0, 60000},
                              {0, 1e-7f}, {65000, 100}, {0, 1e-3f},   {10, 1},      {-1, 1e-5f}, {0, 1e-30f}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
            if (!kv_codec_is_fitted(kv_codec(id), KV_VALUES))
                continue;
            for (size_t i = 0; i < 32 * 64; i++)
                values[i] = cases[c][0] + cases[c][1] * uniform();
            encode(id, SIMD_SCALAR, &group, false, &nearest);
            encode(id, SIMD_SCALAR, &group, true, &fitted);
            double least = squared_error(&group, &nearest), error = squared_error(&group, &fitted);
            if (!(error <= least * 1.1))
                fail_msg("%s of %g +- %g: a squared error of %g, that of nearest codes is %g",
                         kv_codec_name(kv_codec(id)), (double)cases[c][0], (double)cases[c][1], error, least);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),        cmocka_unit_test(test_short_rows),
        cmocka_unit_test(test_which_codecs), cmocka_unit_test(test_values_that_are_not_finite),
        cmocka_unit_test(test_odd_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
