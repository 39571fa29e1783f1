/* How far a decoded number may be from the encoded one: bounds that follow from the data alone, for each codec, shape
 * and kind of data, on both sides, rotated or not. And that the bounds are close: data that comes near them exists. */
#include "base/simd/detect.h"
#include "tests/codec_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_VALUES (64 * 256)

/* What shares a scale, and of nf4's record the smallest and largest block magnitude. */
typedef struct Range {
    double low, high;
    double mean;      /* magnitude */
    double magnitude; /* the largest */
    double least_block, largest_block;
} Range;

/* The most that rounding to the nearest half changes a number by; twice that if rounding up or down. */
static double half_error(double x) {
    return fmax(fabs(x) * 0x1p-11, 0x1p-25);
}

/* The largest scale that may be stored for one that should be `scale`: the next half above. */
static double stored(double scale) {
    return scale + 2 * half_error(scale);
}

/* Codes count from a minimum rounded down, so that the range may have grown. */
static double asymmetric(const Range *range, int bits) {
    double span = range->high - range->low + 2 * half_error(range->low);
    return stored(span / ((1 << bits) - 1)) / 2;
}

/* GGML's codes are of the exact scale, which is rounded afterwards. */
static double ggml_symmetric(const Range *range, int bits, double x) {
    double codes = 1 << (bits - 1), scale = range->magnitude / codes;
    bool clipped = fabs(x) > (codes - 0.5) * scale; /* codes end one below on one side */
    return (clipped ? scale : scale / 2) + codes * half_error(scale);
}

static double ggml_asymmetric(const Range *range, int bits) {
    double levels = (1 << bits) - 1, scale = (range->high - range->low) / levels;
    return scale / 2 + levels * half_error(scale) + half_error(range->low);
}

/* Half of the widest gap between levels, times a scale up to a step above the block's magnitude. */
static double nf4(const Range *range) {
    double low = range->least_block - 2 * half_error(range->least_block);
    double step = stored((range->largest_block - low) / 254);
    return (1 - 0.6961928009986877) / 2 * (range->magnitude + step);
}

static double bound(KvCodecId id, const Range *range, double x) {
    switch (id) {
    case KV_F16:
        return half_error(x);
    case KV_INT8:
        return stored(range->magnitude / 127) / 2;
    case KV_FP8: /* half of the last of four bits, or of the spacing of subnormals */
        return fmax(fabs(x) / 16, stored(range->magnitude / 448) * 0x1p-10);
    case KV_Q8_0:
        return range->magnitude / 127 / 2 + 127 * half_error(range->magnitude / 127);
    case KV_INT8G:
        return asymmetric(range, 8);
    case KV_INT6:
        return asymmetric(range, 6);
    case KV_INT4:
        return asymmetric(range, 4);
    case KV_INT3:
        return asymmetric(range, 3);
    case KV_INT2:
        return asymmetric(range, 2);
    case KV_Q5_0:
        return ggml_symmetric(range, 5, x);
    case KV_Q4_0:
        return ggml_symmetric(range, 4, x);
    case KV_Q5_1:
        return ggml_asymmetric(range, 5);
    case KV_Q4_1:
        return ggml_asymmetric(range, 4);
    case KV_NF4:
        return nf4(range);
    case KV_BINARY:
        return fabs(fabs(x) - range->mean) + half_error(range->mean);
    case KV_CODEC_COUNT:
        break;
    }
    abort();
}

/* Of a unit whose first element is *x. */
static Range range_of(const float *x, CodecUnit unit, size_t row_dim) {
    Range range = {.low = *x, .high = *x};
    for (size_t t = 0; t < unit.n_tokens; t++)
        for (size_t d = 0; d < unit.n_channels; d++) {
            double value = (double)x[t * row_dim + d];
            range.low = fmin(range.low, value);
            range.high = fmax(range.high, value);
            range.mean += fabs(value) / (double)(unit.n_tokens * unit.n_channels);
        }
    range.magnitude = fmax(-range.low, range.high);
    return range;
}

typedef struct Case {
    KvCodecId id;
    KvSide side;
    KvGroup group;
    CodecData data;
    size_t head_dim; /* elements of a row that are no padding */
} Case;

static void check_element(const Case *c, const Range *range, double x, double decoded, double *closest) {
    double error = fabs(decoded - x), limit = bound(c->id, range, x);
    double rounding = 0x1p-21 * range->magnitude; /* of the few F32 operations of encoding and decoding */
    if (!(error <= limit + rounding))
        fail_msg("%s, %s, %zu x %zu in blocks of %zu%s, %s: %.9g became %.9g, off by %.3g; the bound is %.3g",
                 kv_codec_name(kv_codec(c->id)), c->side == KV_KEYS ? "K" : "V", c->group.n_tokens, c->group.head_dim,
                 c->group.block, c->group.rotated ? ", rotated" : "", codec_data_name(c->data), x, decoded, error,
                 limit);
    if (c->id == KV_BINARY && range->mean > 0x1p-13) /* the sign is right, even where the bound allows the other */
        assert_true(x < 0 ? decoded < 0 : decoded > 0);
    if (limit > 0)
        *closest = fmax(*closest, error / (limit + rounding));
}

/* Returns the largest error as a part of its bound. Padding is in no unit's range; rotated rows have none. */
static double check_units(const Case *c, const float *values, const float *decoded) {
    CodecUnit unit = codec_unit(c->id, c->side, &c->group);
    size_t row_dim = c->group.head_dim, end = c->group.rotated ? row_dim : c->head_dim;
    double closest = 0, least_block = (double)INFINITY, largest_block = 0;
    for (int pass = 0; pass < 2; pass++) /* first for nf4's smallest and largest block */
        for (size_t t0 = 0; t0 < c->group.n_tokens; t0 += unit.n_tokens)
            for (size_t d0 = 0; d0 < end; d0 += unit.n_channels) {
                CodecUnit part = {unit.n_tokens, end - d0 < unit.n_channels ? end - d0 : unit.n_channels};
                Range range = range_of(values + t0 * row_dim + d0, part, row_dim);
                least_block = fmin(least_block, range.magnitude);
                largest_block = fmax(largest_block, range.magnitude);
                range.least_block = least_block;
                range.largest_block = largest_block;
                for (size_t i = 0; pass == 1 && i < part.n_tokens * part.n_channels; i++) {
                    size_t at = (t0 + i / part.n_channels) * row_dim + d0 + i % part.n_channels;
                    check_element(c, &range, (double)values[at], (double)decoded[at], &closest);
                }
            }
    return closest;
}

static double check_round_trip(const Case *c) {
    static float heads[MAX_VALUES], values[MAX_VALUES];
    const KvCodec *codec = kv_codec(c->id);
    codec_data(c->data, 8, c->group.n_tokens, c->head_dim, heads);
    for (size_t i = 0; i < c->group.n_tokens * c->group.head_dim; i++)
        values[i] = NAN;
    for (size_t t = 0; t < c->group.n_tokens; t++)
        memcpy(values + t * c->group.head_dim, heads + t * c->head_dim, c->head_dim * sizeof *heads);
    kv_codec_pad(codec, &c->group, c->head_dim, values);
    uint8_t *record = codec_encoded(codec, c->side, &c->group, values);
    float *decoded = codec_decoded(codec, c->side, &c->group, record, cpu_best_simd_level());
    if (c->group.rotated)
        kv_rotate(values, c->group.n_tokens, c->group.head_dim);
    double closest = check_units(c, values, decoded);
    if (c->id == KV_F16 && !c->group.rotated && c->head_dim == c->group.head_dim)
        assert_memory_equal(values, decoded, c->group.n_tokens * c->group.head_dim * sizeof *values);
    free(record);
    free(decoded);
    return closest;
}

/* Where rotation takes elements beyond FP16's range, scales may saturate: that is test_codec.c's subject. */
static void check_all_data(const KvCodec *codec, KvSide side, const KvGroup *group) {
    double closest = 0;
    for (CodecData data = 0; data < DATA_COUNT; data++)
        if (data != DATA_LARGE || !group->rotated)
            closest = fmax(closest, check_round_trip(&(Case){kv_codec_id(codec), side, *group, data, group->head_dim}));
    if (closest < 0.9 && !(kv_codec_id(codec) == KV_F16 && !group->rotated))
        fail_msg("%s: the largest error is %.2f of its bound: is the bound too wide?", kv_codec_name(codec), closest);
}

static void test_round_trip_within_bounds(void **state) {
    (void)state;
    for_each_codec_shape(check_all_data);
}

/* Rows that are longer than a head: as the codec needs, or longer still, as another of the policy does. */
static void test_padding_changes_no_scale(void **state) {
    (void)state;
    static const size_t dims[][2] = {{100, 128}, {20, 32}, {20, 64}, {36, 64}, {52, 64}, {90, 96}, {18, 24}, {80, 96}};
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            for (unsigned choice = 0; choice < 8; choice++) {
                KvGroup group = {
                    .n_tokens = 32, .head_dim = dims[d][1], .block = choice & 1 ? 64 : 32, .rotated = choice & 2};
                bool own_blocks = id != KV_NF4 || dims[d][0] + 64 > dims[d][1]; /* each has elements of the head */
                for (CodecData data = 0; data < DATA_COUNT && own_blocks; data++)
                    if (kv_codec_check(kv_codec(id), &group, NULL) == 0 && (data != DATA_LARGE || !group.rotated))
                        check_round_trip(&(Case){id, choice & 4 ? KV_KEYS : KV_VALUES, group, data, dims[d][0]});
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_within_bounds),
        cmocka_unit_test(test_padding_changes_no_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
