/* The codecs: what they write against the `gguf` package and against a numpy reading of their layout, bit for bit; what
 * they decode against the layout, one element at a time, on every instruction set; what is not finite, large or tiny;
 * rotation; shapes. How far a round trip may be off is test_codec_bounds.c's subject. */
#include "base/simd/detect.h"
#include "kvcache/codec/codec.h"
#include "kvcache/codec/format.h"
#include "kvcache/codec/fp8.h"
#include "kvcache/codec/half.h"
#include "tests/codec_cases.h"
#include "tests/fixture_files.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX_TOKENS = 64, MAX_DIM = 256, MAX_VALUES = MAX_TOKENS * MAX_DIM, CANARY = 64 };

/* The documentation's table once more, independent of the code's. */
typedef enum Kind { UNKNOWN, HALVES, BLOCKS, SYMMETRIC, ASYMMETRIC, E4M3, NF4, SIGNS } Kind;

typedef struct Expected {
    const char *name;
    Kind kind;
    int bits;
    double bits_per_element; /* of 64 tokens by 64 channels in blocks of 64 */
} Expected;

static const Expected EXPECTED[KV_CODEC_COUNT] = {
    [KV_F16] = {"f16", HALVES, 16, 16},         [KV_INT8] = {"int8", SYMMETRIC, 8, 8.25},
    [KV_INT8G] = {"int8g", ASYMMETRIC, 8, 8.5}, [KV_Q8_0] = {"q8_0", BLOCKS, 8, 8.5},
    [KV_INT6] = {"int6", ASYMMETRIC, 6, 6.5},   [KV_INT3] = {"int3", ASYMMETRIC, 3, 3.5},
    [KV_FP8] = {"fp8", E4M3, 8, 8.25},          [KV_Q5_1] = {"q5_1", BLOCKS, 5, 6},
    [KV_Q5_0] = {"q5_0", BLOCKS, 5, 5.5},       [KV_INT4] = {"int4", ASYMMETRIC, 4, 4.5},
    [KV_Q4_1] = {"q4_1", BLOCKS, 4, 5},         [KV_Q4_0] = {"q4_0", BLOCKS, 4, 4.5},
    [KV_NF4] = {"nf4", NF4, 4, 4.1328125},      [KV_INT2] = {"int2", ASYMMETRIC, 2, 2.5},
    [KV_BINARY] = {"binary", SIGNS, 1, 1.25},
};

/* One group on its way through a codec. */
static float values[MAX_VALUES], scratch[MAX_VALUES], decoded[MAX_VALUES + CANARY];

static size_t n_values(const KvGroup *group) {
    return group->n_tokens * group->head_dim;
}

/* Number of the scale that element i of the group has. */
static size_t scale_index(KvCodecId id, KvSide side, const KvGroup *group, size_t i) {
    CodecUnit unit = codec_unit(id, side, group);
    return unit.n_tokens > 1 ? i % group->head_dim : i / unit.n_channels;
}

static size_t n_scales(KvCodecId id, KvSide side, const KvGroup *group) {
    CodecUnit unit = codec_unit(id, side, group);
    return n_values(group) / (unit.n_tokens * unit.n_channels);
}

static bool is_legal(KvCodecId id, const KvGroup *group) {
    Error error = {0};
    return kv_codec_check(kv_codec(id), group, &error) == 0;
}

static uint64_t random_state;

static double random_unit(void) { /* in (0, 1) */
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
}

/* Encodes `values` at every level, into memory of different content: every byte of the record is written, the same
 * everywhere, and none behind it. The result has exactly the record's size, so that sanitizers see a decoder read
 * beyond. */
static uint8_t *encode(KvCodecId id, KvSide side, const KvGroup *group) {
    size_t size = kv_codec_bytes(kv_codec(id), side, group);
    uint8_t *record = malloc(size), *other = malloc(size + CANARY);
    memset(record, 0xa5, size);
    kv_codec_encode(kv_codec(id), SIMD_SCALAR, side, group, values, scratch, record);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        memset(other, 0x5a, size + CANARY);
        kv_codec_encode(kv_codec(id), level, side, group, values, scratch, other);
        assert_memory_equal(record, other, size);
        for (size_t i = size; i < size + CANARY; i++)
            assert_int_equal(other[i], 0x5a);
    }
    free(other);
    return record;
}

static void decode_all(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, SimdLevel level) {
    kv_codec_decoder(kv_codec(id), level)(side, group, record, 0, group->n_tokens, decoded);
}

static void *load(const char *name, size_t *size_bytes) {
    char path[64];
    snprintf(path, sizeof path, "codec/%s", name);
    return fixture_load(fixture_path("STOWKV_FIXTURES", path), size_bytes);
}

static void test_ggml_blocks_match_gguf_package(void **state) {
    (void)state;
    const KvGroup group = {.n_tokens = 64, .head_dim = 64, .block = 64};
    size_t input_bytes, expected_bytes;
    float *input = load("blocks.f32", &input_bytes);
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
        char name[32];
        if (EXPECTED[id].kind != BLOCKS)
            continue;
        snprintf(name, sizeof name, "%s.blocks", EXPECTED[id].name);
        uint8_t *expected = load(name, &expected_bytes);
        size_t size = kv_codec_bytes(kv_codec(id), KV_KEYS, &group);
        size_t n_groups = input_bytes / (n_values(&group) * sizeof *input);
        assert_int_equal(expected_bytes, n_groups * size);
        for (size_t g = 0; g < n_groups; g++) {
            memcpy(values, input + g * n_values(&group), n_values(&group) * sizeof *values);
            uint8_t *record = encode(id, g % 2 ? KV_KEYS : KV_VALUES, &group);
            for (size_t i = 0; i < size; i++)
                if (record[i] != expected[g * size + i])
                    fail_msg("%s, group %zu, byte %zu of block %zu", EXPECTED[id].name, g, i % (size / 128),
                             i / (size / 128));
            free(record);
        }
        free(expected);
    }
    free(input);
}

static void test_records_match_numpy(void **state) {
    (void)state;
    const KvGroup group = {.n_tokens = 64, .head_dim = 128, .block = 64};
    size_t input_bytes, expected_bytes;
    float *input = load("group.f32", &input_bytes);
    assert_int_equal(input_bytes, n_values(&group) * sizeof *input);
    memcpy(values, input, input_bytes);
    for (size_t k = 0; k < KV_CODEC_COUNT * KV_SIDES; k++) {
        KvCodecId id = k / KV_SIDES;
        KvSide side = k % KV_SIDES;
        char name[32];
        if (EXPECTED[id].kind <= BLOCKS)
            continue;
        snprintf(name, sizeof name, "%s_%c.record", EXPECTED[id].name, side == KV_KEYS ? 'k' : 'v');
        uint8_t *expected = load(name, &expected_bytes);
        assert_int_equal(expected_bytes, kv_codec_bytes(kv_codec(id), side, &group));
        uint8_t *record = encode(id, side, &group);
        for (size_t i = 0; i < expected_bytes; i++)
            if (record[i] != expected[i])
                fail_msg("%s, byte %zu: %u, expected %u", name, i, record[i], expected[i]);
        free(record);
        free(expected);
    }
    free(input);
}

/* The published levels were computed in float32. */
static void test_nf4_levels_are_normal_quantiles(void **state) {
    (void)state;
    size_t size_bytes;
    double *levels = load("nf4_levels.f64", &size_bytes);
    assert_int_equal(size_bytes, 16 * sizeof *levels);
    for (size_t i = 0; i < 16; i++)
        assert_true(fabs((double)KV_NF4_LEVELS[i] - levels[i]) < 2e-6);
    assert_true(KV_NF4_LEVELS[0] == -1 && KV_NF4_LEVELS[7] == 0 && KV_NF4_LEVELS[15] == 1);
    free(levels);
}

/* By the definition of OCP's E4M3. */
static double e4m3_value(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 0x7f) == 0x7f)
        return (double)NAN;
    double magnitude = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

/* Nearest by trying all; of two equally near ones the even. */
static uint8_t nearest_e4m3(double x) {
    uint8_t best = 0;
    for (uint8_t code = 1; code < 0x7f; code++) {
        double distance = fabs(fabs(x) - e4m3_value(code)), least = fabs(fabs(x) - e4m3_value(best));
        if (distance < least || (distance == least && code % 2 == 0))
            best = code;
    }
    return (uint8_t)(best | (signbit(x) ? 0x80 : 0));
}

static void check_e4m3(float x) {
    if (fp8_from_float(x) != nearest_e4m3((double)x) || fp8_from_float(-x) != nearest_e4m3(-(double)x))
        fail_msg("%a becomes %#x, expected %#x", (double)x, fp8_from_float(x), nearest_e4m3((double)x));
}

static void test_e4m3(void **state) {
    (void)state;
    assert_true(e4m3_value(0x7e) == 448 && e4m3_value(0x01) == 0x1p-9 && e4m3_value(0x38) == 1);
    for (unsigned code = 0; code < 256; code++) {
        double expected = e4m3_value((uint8_t)code);
        float value = fp8_to_float((uint8_t)code);
        assert_true(isnan(expected) ? isnan(value) : (double)value == expected);
    }
    for (uint16_t half = 0; half < 0x7c00; half++)
        check_e4m3(half_to_float(half));
    for (uint8_t code = 0; code < 0x7e; code++) { /* around the points where rounding turns */
        float middle = (float)((e4m3_value(code) + e4m3_value(code + 1)) / 2);
        check_e4m3(middle);
        check_e4m3(nextafterf(middle, 0));
        check_e4m3(nextafterf(middle, 1e9f));
    }
    assert_true(isnan(fp8_to_float(fp8_from_float(INFINITY))) && isnan(fp8_to_float(fp8_from_float(NAN))));
}

static void test_directed_halves(void **state) {
    (void)state;
    for (uint16_t half = 0; half < 0x7bff; half++) {
        float low = half_to_float(half), high = half_to_float((uint16_t)(half + 1));
        float between[] = {nextafterf(low, 1e9f), (low + high) / 2, nextafterf(high, 0)};
        assert_true(half_to_float(half_floor(low)) == low && half_to_float(half_ceil(low)) == low);
        for (size_t i = 0; i < 3; i++) {
            assert_true(half_to_float(half_floor(between[i])) == low);
            assert_true(half_to_float(half_ceil(between[i])) == high);
            assert_true(half_to_float(half_floor(-between[i])) == -high);
            assert_true(half_to_float(half_ceil(-between[i])) == -low);
        }
    }
    assert_true(half_to_float(half_floor(1e9f)) == 65504 && half_to_float(half_floor(-1e9f)) == -65504);
    assert_true(half_to_float(half_ceil(1e9f)) == 65504 && half_to_float(half_saturated(-1e9f)) == -65504);
}

/* Bit by bit: a token's codes are whole bytes, so those of a group are one stream. */
static unsigned code_of(const uint8_t *codes, size_t i, int bits) {
    unsigned code = 0;
    for (size_t b = 0, at = i * (size_t)bits; b < (size_t)bits; b++, at++)
        code |= (codes[at / 8] >> at % 8 & 1u) << b;
    return code;
}

/* Element i of a record by kvcache/codec/format.h's description; each operation rounds to F32. */
static float element_of(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, size_t i) {
    size_t scales = n_scales(id, side, group), k = scale_index(id, side, group, i);
    int bits = EXPECTED[id].bits;
    if (EXPECTED[id].kind == NF4) {
        float scale = half_load(record) + half_load(record + 2) * (float)record[4 + k];
        scale = record[4 + k] == 255 ? (float)NAN : scale;
        return scale * KV_NF4_LEVELS[code_of(record + 4 + scales, i, bits)];
    }
    bool has_minima = EXPECTED[id].kind == ASYMMETRIC;
    float scale = half_load(record + k * 2), minimum = has_minima ? half_load(record + (scales + k) * 2) : 0;
    unsigned code = code_of(record + scales * (has_minima ? 4 : 2), i, bits);
    float product = scale * (float)code;
    switch (EXPECTED[id].kind) {
    case SYMMETRIC:
        return scale * (float)(int8_t)code;
    case ASYMMETRIC:
        return minimum + product;
    case E4M3:
        return scale * (float)e4m3_value((uint8_t)code);
    case SIGNS:
        return code ? -scale : scale;
    case UNKNOWN:
    case HALVES:
    case BLOCKS:
    case NF4:
        break;
    }
    abort();
}

static void check_random_record(KvCodecId id, KvSide side, const KvGroup *group) {
    size_t size = kv_codec_bytes(kv_codec(id), side, group);
    uint8_t *record = malloc(size);
    for (size_t i = 0; i < size; i++)
        record[i] = (uint8_t)(random_unit() * 256);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        decode_all(id, side, group, record, level);
        for (size_t i = 0; i < n_values(group); i++) {
            float expected = element_of(id, side, group, record, i);
            if (isnan(expected) ? !isnan(decoded[i]) : decoded[i] != expected)
                fail_msg("%s, side %d, head_dim %zu, %s, element %zu: %.9g, expected %.9g", EXPECTED[id].name, side,
                         group->head_dim, simd_level_features(level), i, (double)decoded[i], (double)expected);
        }
    }
    free(record);
}

/* Any bytes: all codes, with scales of every size, infinite and NaN. GGML's blocks are test_tensor's subject. */
static void test_every_code_decodes(void **state) {
    (void)state;
    static const size_t DIMS[] = {8, 24, 32, 64, 80, 96, 128, 192, 256};
    random_state = 11;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (size_t i = 0; i < sizeof DIMS / sizeof *DIMS * 4; i++) {
            KvGroup group = {.n_tokens = i % 2 ? 32 : 64, .head_dim = DIMS[i / 4], .block = i / 2 % 2 ? 32 : 64};
            bool is_tensor = EXPECTED[id].kind <= BLOCKS;
            if (is_tensor || !is_legal(id, &group))
                continue;
            check_random_record(id, KV_KEYS, &group);
            check_random_record(id, KV_VALUES, &group);
        }
}

/* Parts of the group, and nothing behind them. */
static void check_part(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, SimdLevel level,
                       size_t first, size_t count, const float *whole) {
    static float part[MAX_VALUES + CANARY];
    size_t n = count * group->head_dim;
    for (size_t i = n; i < n + CANARY; i++)
        part[i] = 12345;
    kv_codec_decoder(kv_codec(id), level)(side, group, record, first, count, part);
    if (memcmp(part, whole + first * group->head_dim, n * sizeof *part) != 0)
        fail_msg("%s, %s, head_dim %zu: tokens %zu to %zu differ from the whole", EXPECTED[id].name,
                 simd_level_features(level), group->head_dim, first, first + count - 1);
    for (size_t i = n; i < n + CANARY; i++)
        assert_true(part[i] == 12345);
}

static void check_parts(const KvCodec *codec, KvSide side, const KvGroup *group) {
    KvCodecId id = kv_codec_id(codec);
    for (CodecData data = DATA_GAUSSIAN; data < DATA_COUNT; data++) {
        codec_data(data, 3, group->n_tokens, group->head_dim, values);
        uint8_t *record = encode(id, side, group);
        decode_all(id, side, group, record, SIMD_SCALAR);
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
            check_part(id, side, group, record, level, 0, group->n_tokens, decoded);
            check_part(id, side, group, record, level, group->n_tokens - 1, 1, decoded);
            check_part(id, side, group, record, level, 3, 18, decoded);
        }
        free(record);
    }
}

static void test_parts_and_instruction_sets_agree(void **state) {
    (void)state;
    for_each_codec_shape(check_parts);
}

/* Whether element i decodes to NaN where element `bad` is not finite. A rotation carries it to all of its token. */
static bool is_affected(KvCodecId id, KvSide side, const KvGroup *group, size_t bad, size_t i) {
    if (!group->rotated)
        return scale_index(id, side, group, i) == scale_index(id, side, group, bad);
    return codec_unit(id, side, group).n_tokens > 1 || i / group->head_dim == bad / group->head_dim;
}

/* `clean` is what the group decodes to without `value`. Only nf4's scales depend on elements of other blocks. */
static void check_not_finite(KvCodecId id, KvSide side, const KvGroup *group, const float *clean, size_t bad,
                             float value) {
    float kept = values[bad];
    values[bad] = value;
    uint8_t *record = encode(id, side, group);
    values[bad] = kept;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        decode_all(id, side, group, record, level);
        for (size_t i = 0; i < n_values(group); i++) {
            bool as_before = id == KV_NF4 ? isfinite(decoded[i]) : decoded[i] == clean[i];
            if (is_affected(id, side, group, bad, i) ? !isnan(decoded[i]) : !as_before)
                fail_msg("%s, side %d%s, %s: %g in element %zu makes %g of element %zu", EXPECTED[id].name, side,
                         group->rotated ? " rotated" : "", simd_level_features(level), (double)value, bad,
                         (double)decoded[i], i);
        }
    }
    free(record);
}

static void test_what_is_not_finite_becomes_nan(void **state) {
    (void)state;
    static const float BAD[] = {NAN, INFINITY, -INFINITY};
    static float clean[32 * 128];
    KvGroup group = {.n_tokens = 32, .head_dim = 128, .block = 32};
    codec_data(DATA_GAUSSIAN, 5, group.n_tokens, group.head_dim, values);
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (size_t i = 0; i < 3 * 3 * 2 * 2; i++) {
            const size_t positions[] = {0, 7 * 128 + 70, 32 * 128 - 1};
            KvSide side = i / 18 ? KV_KEYS : KV_VALUES;
            group.rotated = i / 9 % 2;
            uint8_t *record = encode(id, side, &group);
            decode_all(id, side, &group, record, SIMD_SCALAR);
            memcpy(clean, decoded, sizeof clean);
            check_not_finite(id, side, &group, clean, positions[i / 3 % 3], BAD[i % 3]);
            free(record);
        }
}

static void check_stays_finite(const KvGroup *group) {
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (KvSide side = KV_KEYS; side <= KV_VALUES; side++) {
            uint8_t *record = encode(id, side, group);
            decode_all(id, side, group, record, SIMD_SCALAR);
            for (size_t i = 0; i < n_values(group); i++)
                assert_true(isfinite(decoded[i]));
            free(record);
        }
}

/* Rotated, 256 elements of 65504 become one of a million. Unrotated, the largest floats there are. */
static void test_large_values_stay_finite(void **state) {
    (void)state;
    static const float LARGE[] = {65504, 65519, 1e6f, 1e35f, 3.4e38f};
    KvGroup group = {.n_tokens = 32, .head_dim = 256, .block = 64};
    for (size_t k = 0; k < sizeof LARGE / sizeof *LARGE * 4; k++) {
        float large = LARGE[k / 4];
        group.rotated = k / 2 % 2 && large < 1e36f;
        for (size_t i = 0; i < n_values(&group); i++)
            values[i] = k % 2 && i % 3 == 0 ? -large : large;
        check_stays_finite(&group);
    }
}

/* Subnormal floats, far below the smallest half: no code takes them for more than that. */
static void test_tiny_values_stay_tiny(void **state) {
    (void)state;
    const KvGroup group = {.n_tokens = 32, .head_dim = 64, .block = 32};
    for (size_t i = 0; i < n_values(&group); i++)
        values[i] = i % 3 == 0 ? -1e-40f : 2e-40f;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT * 2; id++) {
        KvSide side = id % 2 ? KV_KEYS : KV_VALUES;
        uint8_t *record = encode(id / 2, side, &group);
        decode_all(id / 2, side, &group, record, SIMD_SCALAR);
        for (size_t i = 0; i < n_values(&group); i++)
            assert_true(fabsf(decoded[i]) <= 0x1p-24f);
        free(record);
    }
}

static void test_rotation_is_the_hadamard_matrix(void **state) {
    (void)state;
    float rotated[3 * MAX_DIM];
    for (size_t n = 1; n <= MAX_DIM; n *= 2) {
        codec_data(DATA_GAUSSIAN, (unsigned)n, 3, n, values);
        memcpy(rotated, values, 3 * n * sizeof *values);
        kv_rotate(rotated, 3, n);
        for (size_t i = 0; i < 3 * n; i++) {
            const float *row = values + i / n * n;
            double sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += __builtin_parity((unsigned)(i % n & j)) ? -(double)row[j] : (double)row[j];
            assert_true(fabs((double)rotated[i] - sum / sqrt((double)n)) < 1e-5);
        }
        kv_rotate(rotated, 3, n);
        for (size_t i = 0; i < 3 * n; i++)
            assert_true(fabsf(rotated[i] - values[i]) < 1e-5f);
    }
}

static void test_rotation_keeps_products(void **state) {
    (void)state;
    enum { N = 128 };
    codec_data(DATA_GAUSSIAN, 9, 2, N, values);
    double before = 0, after = 0;
    for (size_t j = 0; j < N; j++)
        before += (double)values[j] * (double)values[N + j];
    kv_rotate(values, 2, N);
    for (size_t j = 0; j < N; j++)
        after += (double)values[j] * (double)values[N + j];
    assert_true(fabs(before - after) < 1e-4);
}

static void test_names_and_sizes(void **state) {
    (void)state;
    const KvGroup group = {.n_tokens = 64, .head_dim = 64, .block = 64};
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
        const KvCodec *codec = kv_codec(id);
        assert_string_equal(kv_codec_name(codec), EXPECTED[id].name);
        assert_string_equal(kv_codec_names()[id], EXPECTED[id].name);
        assert_ptr_equal(kv_codec_named(sv(EXPECTED[id].name)), codec);
        assert_int_equal(kv_codec_id(codec), id);
        assert_int_equal(kv_codec_nominal_bits(codec), EXPECTED[id].bits);
        assert_true(strlen(kv_codec_purpose(codec)) > 0);
        assert_true(kv_codec_bits(codec, codec, &group) == EXPECTED[id].bits_per_element);
    }
    assert_null(kv_codec_names()[KV_CODEC_COUNT]);
    assert_null(kv_codec_named(sv("int9")));
    const KvGroup small = {.n_tokens = 32, .head_dim = 64, .block = 32};
    assert_true(kv_codec_bits(kv_codec(KV_INT4), kv_codec(KV_INT4), &small) == 5);
    assert_true(kv_codec_bits(kv_codec(KV_INT8), kv_codec(KV_Q4_0), &group) == (8.25 + 4.5) / 2);
}

static void assert_refused(KvCodecId id, KvGroup group, const char *part_of_message) {
    Error error = {0};
    assert_true(kv_codec_check(kv_codec(id), &group, &error) < 0);
    if (strstr(error.message, part_of_message) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", error.message, part_of_message);
}

static void test_shapes_are_checked(void **state) {
    (void)state;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
        assert_refused(id, (KvGroup){.n_tokens = 16, .head_dim = 64, .block = 64}, "use 32 or 64");
        assert_refused(id, (KvGroup){.n_tokens = 64, .head_dim = 64, .block = 48}, "use 32 or 64");
        assert_refused(id, (KvGroup){.n_tokens = 64, .head_dim = 96, .block = 32, .rotated = true},
                       id == KV_NF4 ? "multiple of 64" : "power of two");
    }
    assert_refused(KV_Q8_0, (KvGroup){.n_tokens = 64, .head_dim = 80, .block = 64},
                   "use one of f16, int8, fp8, binary");
    assert_refused(KV_INT4, (KvGroup){.n_tokens = 64, .head_dim = 80, .block = 32}, "multiple of 32");
    assert_true(is_legal(KV_INT4, &(KvGroup){.n_tokens = 64, .head_dim = 96, .block = 32}));
    assert_true(is_legal(KV_INT4, &(KvGroup){.n_tokens = 64, .head_dim = 32, .block = 64}));
    assert_false(is_legal(KV_INT4, &(KvGroup){.n_tokens = 64, .head_dim = 96, .block = 64}));
}

/* Mean magnitude of the error on data with outlier channels, rotated back. */
static double mean_error(KvCodecId id, KvSide side, bool rotated) {
    const KvGroup group = {.n_tokens = 64, .head_dim = 128, .block = 64, .rotated = rotated};
    codec_data(DATA_OUTLIER_CHANNELS, 4, group.n_tokens, group.head_dim, values);
    uint8_t *record = encode(id, side, &group);
    decode_all(id, side, &group, record, SIMD_SCALAR);
    free(record);
    if (rotated)
        kv_rotate(decoded, group.n_tokens, group.head_dim);
    double sum = 0;
    for (size_t i = 0; i < n_values(&group); i++)
        sum += fabs((double)decoded[i] - (double)values[i]);
    return sum / (double)n_values(&group);
}

/* What docs/codecs.md advises: to rotate what has scales along head_dim, and nothing that has them by channel. */
static void test_rotation_helps_blocks_only(void **state) {
    (void)state;
    static const KvCodecId IN_BLOCKS[] = {KV_Q8_0, KV_Q5_0, KV_Q4_1, KV_Q4_0, KV_NF4};
    for (size_t i = 0; i < sizeof IN_BLOCKS / sizeof *IN_BLOCKS; i++)
        assert_true(mean_error(IN_BLOCKS[i], KV_KEYS, true) < mean_error(IN_BLOCKS[i], KV_KEYS, false) * 0.9);
    assert_true(mean_error(KV_INT4, KV_VALUES, true) < mean_error(KV_INT4, KV_VALUES, false) * 0.9);
    assert_true(mean_error(KV_INT4, KV_KEYS, false) < mean_error(KV_INT4, KV_KEYS, true) * 0.9);
    assert_true(mean_error(KV_INT4, KV_KEYS, false) < mean_error(KV_Q4_0, KV_KEYS, true));
}

static int check_expectations(void **state) {
    (void)state;
    int n_missing = 0;
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        if (EXPECTED[id].kind == UNKNOWN) {
            print_error("test_codec.c: EXPECTED has no row for codec %s\n", kv_codec_name(kv_codec(id)));
            n_missing++;
        }
    return n_missing;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ggml_blocks_match_gguf_package),
        cmocka_unit_test(test_records_match_numpy),
        cmocka_unit_test(test_nf4_levels_are_normal_quantiles),
        cmocka_unit_test(test_e4m3),
        cmocka_unit_test(test_directed_halves),
        cmocka_unit_test(test_every_code_decodes),
        cmocka_unit_test(test_parts_and_instruction_sets_agree),
        cmocka_unit_test(test_what_is_not_finite_becomes_nan),
        cmocka_unit_test(test_large_values_stay_finite),
        cmocka_unit_test(test_tiny_values_stay_tiny),
        cmocka_unit_test(test_rotation_is_the_hadamard_matrix),
        cmocka_unit_test(test_rotation_keeps_products),
        cmocka_unit_test(test_names_and_sizes),
        cmocka_unit_test(test_shapes_are_checked),
        cmocka_unit_test(test_rotation_helps_blocks_only),
    };
    return cmocka_run_group_tests(tests, check_expectations, NULL);
}
