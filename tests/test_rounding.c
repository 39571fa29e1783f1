/* Rounding keys with an eye to the queries, against the definition in double precision: the moments' factor, the codes
 * that follow from it, what is gained, and what must not happen where moments or keys are not finite. That a cache uses
 * the right queries at the right moment is in test_kvcache.c. */
#include "base/simd/detect.h"
#include "kvcache/codec/codec.h"
#include "kvcache/codec/half.h"
#include "tests/plain_fit.h"
#include "tests/plain_moments.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HALF_ULP 0x1p-10 /* a unit in the last place of FP16, relative */

enum { MAX_DIM = 128, MAX_TOKENS = 64, N_QUERIES = 96, RANK = 6 };

static float queries[N_QUERIES][MAX_DIM], keys[MAX_TOKENS][MAX_DIM];

static float uniform(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005 + 1442695040888963407;
    return (float)(state >> 40) / (float)(1 << 23) - 1;
}

/* Queries that look in a few directions, as real ones do, and a little everywhere. */
static void fill_queries(size_t head_dim) {
    float directions[RANK][MAX_DIM];
    for (size_t r = 0; r < RANK; r++)
        for (size_t d = 0; d < head_dim; d++)
            directions[r][d] = uniform();
    for (size_t i = 0; i < N_QUERIES; i++) {
        for (size_t d = 0; d < head_dim; d++)
            queries[i][d] = 0.05f * uniform();
        for (size_t r = 0; r < RANK; r++) {
            float share = uniform() * 3;
            for (size_t d = 0; d < head_dim; d++)
                queries[i][d] += share * directions[r][d];
        }
    }
}

static void fill_keys(size_t n_tokens, size_t head_dim, size_t row_dim) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < row_dim; d++)
            keys[t][d] = d < head_dim ? uniform() * (d % 16 == 3 ? 8 : 1) : 0;
}

static float *moments_of(SimdLevel level, size_t head_dim, size_t n_queries) {
    float *sums = calloc(kv_moments_floats(head_dim), sizeof *sums), waiting[KV_MOMENTS_WAITING * MAX_DIM];
    size_t n_waiting = 0;
    const KvMoments moments = {sums, waiting, &n_waiting, head_dim, level};
    kv_moments_take(&moments, 1, n_queries, MAX_DIM, queries[0]);
    kv_moments_settle(&moments);
    return sums;
}

/* Element (i, j) of the Walsh-Hadamard matrix of n rows. */
static double hadamard(size_t i, size_t j, size_t n) {
    return (__builtin_popcountll(i & j) % 2 == 0 ? 1 : -1) / sqrt((double)n);
}

/* H in double: the sum over queries, padded and rotated one by one, and a tenth of the mean diagonal on the diagonal.
 */
static double *moments_in_double(size_t head_dim, size_t row_dim, bool rotated) {
    double *h = calloc(row_dim * row_dim, sizeof *h), trace = 0;
    for (size_t i = 0; i < N_QUERIES; i++) {
        double q[MAX_DIM] = {0};
        for (size_t r = 0; r < row_dim; r++)
            for (size_t d = 0; d < head_dim; d++)
                q[r] += queries[i][d] * (rotated ? hadamard(r, d, row_dim) : r == d);
        for (size_t r = 0; r < row_dim; r++)
            for (size_t c = 0; c < row_dim; c++)
                h[r * row_dim + c] += q[r] * q[c];
    }
    for (size_t r = 0; r < row_dim; r++)
        trace += h[r * row_dim + r];
    for (size_t r = 0; r < row_dim; r++)
        h[r * row_dim + r] += 0.1 * trace / (double)row_dim;
    return h;
}

/* Whether H = U D U^T for the factor's U and the diagonal D that it leaves: no other factorization is needed. The
 * largest element of H - U D U^T, where D follows from the last column backwards. */
static double residual(const double *h, const float *factor, size_t n) {
    double *left = malloc(n * n * sizeof *left), largest = 0;
    memcpy(left, h, n * n * sizeof *left);
    for (size_t k = n; k-- > 0;) {
        double pivot = left[k * n + k];
        for (size_t i = 0; i <= k; i++)
            for (size_t j = 0; j <= k; j++) {
                double u = i == k ? 1 : factor[k * n + i], v = j == k ? 1 : factor[k * n + j];
                left[i * n + j] -= u * pivot * v;
            }
        for (size_t i = 0; i <= k; i++) /* nothing of row and column k may be left */
            largest = fmax(largest, fabs(left[i * n + k]));
    }
    free(left);
    return largest;
}

/* Sums in F32 are off by N_QUERIES roundings at most, and the elimination by n more, each relative to the diagonal. */
static void test_factor(void **state) {
    (void)state;
    const struct {
        size_t head_dim, row_dim;
        bool rotated;
    } cases[] = {{64, 64, false}, {64, 64, true}, {128, 128, true}, {48, 64, true}, {20, 32, true}, {20, 24, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = cases[i].row_dim;
        fill_queries(cases[i].head_dim);
        float *first = NULL, *factor = malloc(n * n * sizeof *factor);
        double *h = moments_in_double(cases[i].head_dim, n, cases[i].rotated), largest = 0;
        for (size_t r = 0; r < n; r++)
            largest = fmax(largest, h[r * n + r]);
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
            float *moments = moments_of(level, cases[i].head_dim, N_QUERIES);
            assert_true(kv_moments_factor(level, moments, cases[i].head_dim, n, cases[i].rotated, factor));
            double off = residual(h, factor, n), bound = (N_QUERIES + (double)n) * FLT_EPSILON * largest;
            if (off > bound)
                fail_msg("%zu of %zu, rotated %d: H - U D U^T is %g, more than %g", cases[i].head_dim, n,
                         cases[i].rotated, off, bound);
            for (size_t k = 0; k < n && first != NULL; k++)
                assert_memory_equal(factor + k * n, first + k * n, k * sizeof *factor);
            if (first == NULL) {
                first = malloc(n * n * sizeof *first);
                memcpy(first, factor, n * n * sizeof *first);
            }
            free(moments);
        }
        free(first);
        free(factor);
        free(h);
    }
}

/* Sums go over the queries one after the other, of heads that lie side by side, wherever calls end, whichever queries
 * wait, and whenever somebody needs the sums. */
static void test_order(void **state) {
    (void)state;
    enum { DIM = 24, MAX_HEADS = 7, TOKENS = 150 };
    static float rows[TOKENS * 3 * MAX_HEADS * DIM];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = uniform();
    for (size_t n_heads = 1; n_heads <= MAX_HEADS; n_heads += 2) {
        size_t stride = 3 * n_heads * DIM, size = kv_moments_floats(DIM), n_waiting = 0, most = 0, n = 1;
        float *expected = calloc(size, sizeof *expected), *sums = calloc(size, sizeof *sums);
        float waiting[KV_MOMENTS_WAITING * 32];
        const KvMoments moments = {sums, waiting, &n_waiting, DIM, cpu_best_simd_level()};
        for (size_t t = 0; t + 7 <= TOKENS; t += n, n = 1 + (size_t)(fabsf(uniform()) * 6)) {
            const float *first = rows + t * stride + n_heads * DIM;
            kv_moments_take(&moments, n_heads, n, stride, first);
            for (size_t i = 0; i < n * n_heads; i++)
                plain_moments_add(expected, DIM, first + i / n_heads * stride + i % n_heads * DIM);
            most = n_waiting > most ? n_waiting : most;
            if (t % 5 > 0)
                continue;
            kv_moments_settle(&moments);
            assert_int_equal(n_waiting, 0);
            assert_memory_equal(sums, expected, size * sizeof *sums);
        }
        assert_true(most > KV_MOMENTS_WAITING / 2 && most < KV_MOMENTS_WAITING);
        kv_moments_fade(&moments, 0.5f);
        for (size_t i = 0; i < size; i++)
            expected[i] *= 0.5f;
        assert_memory_equal(sums, expected, size * sizeof *sums);
        free(expected);
        free(sums);
    }
}

typedef struct Encoded {
    uint8_t record[MAX_TOKENS * MAX_DIM * 4];
    float decoded[MAX_TOKENS][MAX_DIM];
} Encoded;

/* factor NULL: to nearest. */
static void encode(KvCodecId id, SimdLevel level, const KvGroup *group, const float *factor, Encoded *out) {
    static float rows[MAX_TOKENS * MAX_DIM], decoded[MAX_TOKENS * MAX_DIM], scratch[MAX_TOKENS * MAX_DIM * 5 / 4];
    const KvCodec *codec = kv_codec(id);
    for (size_t t = 0; t < group->n_tokens; t++)
        memcpy(rows + t * group->head_dim, keys[t], group->head_dim * sizeof *rows);
    memset(out->record, 0xee, sizeof out->record);
    if (factor != NULL)
        kv_codec_encode_aware(codec, level, group, factor, rows, scratch, out->record);
    else
        kv_codec_encode(codec, level, KV_KEYS, group, rows, NULL, out->record);
    kv_codec_decoder(codec, level)(KV_KEYS, group, out->record, 0, group->n_tokens, decoded);
    for (size_t t = 0; t < group->n_tokens; t++)
        memcpy(out->decoded[t], decoded + t * group->head_dim, group->head_dim * sizeof *decoded);
}

/* Codes per channel, from the lowest to the highest. */
static double levels_of(KvCodecId id) {
    return id == KV_INT8 ? 127 : (1 << kv_codec_nominal_bits(kv_codec(id))) - 1;
}

/* Decoded numbers lie within half a stored step of x, what was to be rounded, and the step is what its range needs, as
 * FP16. */
static void check_range(KvCodecId id, size_t channel, double step, const double *x, const double *decoded, size_t n) {
    double low = INFINITY, high = -INFINITY;
    for (size_t t = 0; t < n; t++) {
        low = fmin(low, x[t]);
        high = fmax(high, x[t]);
    }
    double size = fmax(fabs(low), fabs(high)), slack = 4 * HALF_ULP * size + 1e-7;
    double range = id == KV_INT8 ? size : high - low;
    for (size_t t = 0; t < n; t++)
        if (fabs(decoded[t] - x[t]) > step / 2 + 1e-4 * step + 1e-6 * size)
            fail_msg("%s: channel %zu, token %zu is %g, to be rounded was %g in steps of %g",
                     kv_codec_name(kv_codec(id)), channel, t, decoded[t], x[t], step);
    if (fabs(step * levels_of(id) - range) > slack + range * HALF_ULP)
        fail_msg("%s: channel %zu has steps of %g over a range of %g", kv_codec_name(kv_codec(id)), channel, step,
                 range);
}

/* Decoded numbers are those of the fit to x. Returns whether they could be compared. */
static bool check_fit(KvCodecId id, size_t channel, const double *x, const double *decoded, size_t n) {
    PlainFit fit = plain_fit(x, n, kv_codec_nominal_bits(kv_codec(id)));
    for (size_t t = 0; t < n && plain_fit_is_clear(&fit); t++)
        if (!plain_fit_agrees(&fit, t, decoded[t]))
            fail_msg("%s: channel %zu, token %zu is %g, and by the definition %g", kv_codec_name(kv_codec(id)), channel,
                     t, decoded[t], plain_fit_number(&fit, t));
    return plain_fit_is_clear(&fit);
}

/* In double: what each channel decodes to follows from what is to be rounded, its own numbers plus the shares of all
 * errors before it. */
static void check_channels(KvCodecId id, const KvGroup *group, const float *factor, const Encoded *encoded) {
    static double errors[MAX_DIM][MAX_TOKENS];
    size_t n_compared = 0;
    for (size_t c = 0; c < group->head_dim; c++) {
        double x[MAX_TOKENS], decoded[MAX_TOKENS];
        for (size_t t = 0; t < group->n_tokens; t++) {
            x[t] = keys[t][c];
            for (size_t j = 0; j < c; j++)
                x[t] += errors[j][t] * factor[c * group->head_dim + j];
            decoded[t] = encoded->decoded[t][c];
            errors[c][t] = (double)keys[t][c] - decoded[t];
        }
        if (kv_codec_is_fitted(kv_codec(id), KV_KEYS))
            n_compared += check_fit(id, c, x, decoded, group->n_tokens);
        else
            check_range(id, c, half_load(encoded->record + c * 2), x, decoded, group->n_tokens);
    }
    assert_true(!kv_codec_is_fitted(kv_codec(id), KV_KEYS) || n_compared * 10 > group->head_dim * 9);
}

/* The mean squared error of scores. */
static double score_error(const KvGroup *group, const Encoded *encoded) {
    double sum = 0;
    for (size_t i = 0; i < N_QUERIES; i++)
        for (size_t t = 0; t < group->n_tokens; t++) {
            double error = 0;
            for (size_t d = 0; d < group->head_dim; d++)
                error += (double)queries[i][d] * ((double)keys[t][d] - encoded->decoded[t][d]);
            sum += error * error;
        }
    return sum;
}

static void check_codec(KvCodecId id, const KvGroup *group) {
    static Encoded nearest, zeros, aware, other;
    size_t n = group->head_dim;
    float *factor = calloc(n * n, sizeof *factor), *moments;
    fill_queries(n);
    fill_keys(group->n_tokens, n, n);
    encode(id, SIMD_SCALAR, group, NULL, &nearest);
    encode(id, SIMD_SCALAR, group, factor, &zeros);
    check_channels(id, group, factor, &zeros);
    if (!kv_codec_is_fitted(kv_codec(id), KV_KEYS))
        assert_memory_equal(zeros.record, nearest.record, sizeof nearest.record);
    moments = moments_of(SIMD_SCALAR, n, N_QUERIES);
    assert_true(kv_moments_factor(SIMD_SCALAR, moments, n, n, false, factor));
    encode(id, SIMD_SCALAR, group, factor, &aware);
    check_channels(id, group, factor, &aware);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        encode(id, level, group, factor, &other);
        assert_memory_equal(other.record, aware.record, sizeof aware.record);
    }
    double ratio = score_error(group, &aware) / score_error(group, &nearest);
    if (ratio > 0.5)
        fail_msg("%s of %zu: scores are off by %g times what nearest rounding does", kv_codec_name(kv_codec(id)), n,
                 ratio);
    free(moments);
    free(factor);
}

static void test_codes(void **state) {
    (void)state;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        if (kv_codec_rounds_aware(kv_codec(id))) {
            check_codec(id, &(KvGroup){64, 64, 64, false});
            check_codec(id, &(KvGroup){32, 128, 32, false});
            check_codec(id, &(KvGroup){32, 24, 32, false});
        }
}

static void test_which_codecs(void **state) {
    (void)state;
    const KvCodecId aware[] = {KV_INT8, KV_INT8G, KV_INT6, KV_INT4, KV_INT3, KV_INT2};
    size_t n = 0;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        n += kv_codec_rounds_aware(kv_codec(id));
    assert_int_equal(n, sizeof aware / sizeof *aware);
    for (size_t i = 0; i < n; i++)
        assert_true(kv_codec_rounds_aware(kv_codec(aware[i])));
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        assert_int_equal(kv_codec_is_fitted(kv_codec(id), KV_KEYS), id == KV_INT2);
}

/* A channel that is not finite is lost, and no other with it. */
static void test_keys_that_are_not_finite(void **state) {
    (void)state;
    static Encoded encoded;
    const KvGroup group = {32, 32, 32, false};
    const KvCodecId codecs[] = {KV_INT4, KV_INT2};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float factor[32 * 32];
    fill_queries(32);
    float *moments = moments_of(SIMD_SCALAR, 32, N_QUERIES);
    assert_true(kv_moments_factor(SIMD_SCALAR, moments, 32, 32, false, factor));
    for (size_t i = 0; i < 2 * sizeof bad / sizeof *bad; i++) {
        fill_keys(32, 32, 32);
        keys[5][7] = bad[i / 2];
        encode(codecs[i % 2], SIMD_SCALAR, &group, factor, &encoded);
        for (size_t t = 0; t < 32; t++)
            for (size_t d = 0; d < 32; d++)
                assert_true(isfinite(encoded.decoded[t][d]) == (d != 7));
    }
    free(moments);
}

static void check_moments(float query, bool has_factor) {
    enum { DIM = 32 };
    float factor[DIM * DIM], *moments;
    for (size_t d = 0; d < DIM; d++)
        queries[0][d] = query;
    moments = moments_of(SIMD_SCALAR, DIM, 1);
    assert_int_equal(kv_moments_factor(SIMD_SCALAR, moments, DIM, DIM, true, factor), has_factor);
    for (size_t k = 0; k < DIM && has_factor; k++)
        for (size_t j = 0; j < k; j++)
            assert_true(fabsf(factor[k * DIM + j]) <= 1.0f); /* rank one: shares of a channel that lies in it */
    free(moments);
}

static void test_moments_that_are_singular_or_not_finite(void **state) {
    (void)state;
    check_moments(0, false);
    check_moments(NAN, false);
    check_moments(INFINITY, false);
    check_moments(1e25f, false); /* its square is no float */
    check_moments(1e-30f, false);
    check_moments(1, true);
    check_moments(1e17f, true);
    check_moments(1e-15f, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_which_codecs),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_keys_that_are_not_finite),
        cmocka_unit_test(test_moments_that_are_singular_or_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
