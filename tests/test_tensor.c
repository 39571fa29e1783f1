/* Number formats: decoding of every tensor type against the `gguf` package, FP16 against its definition, and the
 * kernels' exponential against libm in double; on every instruction set that this machine has. */
#include "base/block_decode.h"
#include "base/half.h"
#include "base/simd/detect.h"
#include "base/tensor.h"
#include "cpu/kernels.h"
#include "tests/fixture_files.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void check_decoded(TensorType type, SimdLevel level) {
    const TensorTypeInfo *info = tensor_type_info(type);
    char name[64] = "dequant/";
    for (size_t i = 0; info->name[i] != '\0'; i++)
        name[strlen(name)] = (char)tolower((unsigned char)info->name[i]);
    char *suffix = name + strlen(name);
    size_t block_bytes, value_bytes;
    memcpy(suffix, ".blocks", sizeof ".blocks");
    uint8_t *blocks = fixture_load(fixture_path("STOWKV_FIXTURES", name), &block_bytes);
    memcpy(suffix, ".f32", sizeof ".f32");
    float *expected = fixture_load(fixture_path("STOWKV_FIXTURES", name), &value_bytes);

    size_t n = block_bytes / info->block_bytes * info->block_elements;
    assert_int_equal(n * sizeof(float), value_bytes);
    Tensor tensor = {.type = type, .shape = {n, 1, 1, 1}, .data = blocks};
    float *decoded = malloc(value_bytes);
    tensor_decoder(type, level)(&tensor, 0, n, decoded);
    for (size_t i = 0; i < n; i++)
        if (decoded[i] != expected[i])
            fail_msg("%s, %s, element %zu: %.9g, expected %.9g", info->name, simd_level_features(level), i,
                     (double)decoded[i], (double)expected[i]);
    /* From the second block on: the offset must be in elements of a row, not in bytes. */
    tensor_decoder(type, level)(&tensor, info->block_elements, info->block_elements, decoded);
    assert_memory_equal(decoded, expected + info->block_elements, info->block_elements * sizeof(float));
    free(blocks);
    free(expected);
    free(decoded);
}

static void test_decode_matches_gguf_package(void **state) {
    (void)state;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (TensorType type = TYPE_F16; type < TYPE_I8_GROUPED; type++)
            check_decoded(type, level);
}

static void test_decode_int8_groups(void **state) {
    (void)state;
    enum { N = 256, GROUP = 32 };
    int8_t codes[N];
    float scales[N / GROUP], decoded[N];
    for (int i = 0; i < N; i++)
        codes[i] = (int8_t)(i - 128);
    for (int g = 0; g < N / GROUP; g++)
        scales[g] = 0.25f * (float)(g + 1);
    Tensor tensor = {.type = TYPE_I8_GROUPED,
                     .shape = {N, 1, 1, 1},
                     .data = (const uint8_t *)codes,
                     .scales = scales,
                     .group = GROUP};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        tensor_decoder(TYPE_I8_GROUPED, level)(&tensor, GROUP, N - GROUP, decoded);
        for (int i = GROUP; i < N; i++)
            assert_true(decoded[i - GROUP] == 0.25f * (float)(i / GROUP + 1) * (float)(i - 128));
    }
}

/* The value of a half by the definition of binary16. */
static double half_value(uint16_t half) {
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

static bool is_finite_half(uint16_t half) {
    return (half >> 10 & 31) != 31;
}

static void test_half_conversions(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint16_t half = (uint16_t)bits;
        float value = half_to_float(half);
        if (is_finite_half(half)) {
            assert_true((double)value == half_value(half));
            assert_int_equal(half_from_float(value), half);
        } else {
            assert_true((half & 1023) == 0 ? isinf(value) : isnan(value));
            assert_true((half & 1023) != 0 ? isnan(half_to_float(half_from_float(value)))
                                           : half_from_float(value) == half);
        }
    }
}

/* Between two neighbouring halves: the nearer one, and of two equally near ones the even. */
static void test_half_rounding(void **state) {
    (void)state;
    for (uint16_t half = 0; half < 0x7bff; half++) {
        float low = half_to_float(half), high = half_to_float((uint16_t)(half + 1)), middle = (low + high) / 2;
        uint16_t even = (uint16_t)(half + (half & 1));
        assert_int_equal(half_from_float(middle), even);
        assert_int_equal(half_from_float(nextafterf(middle, 0)), half);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), half + 1);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
    }
    assert_int_equal(half_from_float(65519.99f), 0x7bff);
    assert_int_equal(half_from_float(65520.0f), 0x7c00);
}

static const Kernels *kernels(SimdLevel level) {
    static const Kernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(model_kernels);
    return KERNELS[level];
}

/* silu carries the error of the exponential (2e-7) and four roundings of 2^-24. */
static void test_swiglu(void **state) {
    (void)state;
    enum { N = 4099 }; /* not a multiple of any number of lanes */
    static float gate[N], up[N];
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        for (int i = 0; i < N; i++) {
            gate[i] = (float)(i - N / 2) * 0.04f;
            up[i] = 1.5f;
        }
        kernels(level)->swiglu(gate, up, N);
        for (int i = 0; i < N; i++) {
            double z = (double)((float)(i - N / 2) * 0.04f), expected = 1.5 * z / (1 + exp(-z));
            assert_true(fabs((double)gate[i] - expected) <= 5e-7 * fabs(expected) + 1e-35);
        }
    }
}

/* The sum of n squares in n / lanes steps has a relative error below n * 2^-24, its root half of that. */
static void test_rmsnorm(void **state) {
    (void)state;
    enum { N = 571 };
    float x[N], gain[N], y[N];
    double squares = 0;
    for (int i = 0; i < N; i++) {
        x[i] = (float)sin(i * 0.7) * 3;
        gain[i] = (float)(1 + 0.01 * i);
        squares += (double)x[i] * (double)x[i];
    }
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        kernels(level)->rmsnorm(x, gain, 1e-2f, N, y);
        for (int i = 0; i < N; i++) {
            double expected = (double)gain[i] * (double)x[i] / sqrt(squares / N + (double)1e-2f);
            assert_true(fabs((double)y[i] - expected) <= N * 0x1p-25 * fabs(expected));
        }
    }
}

/* Pairs are turned by their angle: against double precision, two products and a sum of 2^-24 each. */
static void check_rope(SimdLevel level, size_t head_dim, RopePairing pairing) {
    enum { HEADS = 3, MAX_DIM = 72 };
    float x[HEADS * MAX_DIM], before[HEADS * MAX_DIM], rotation[MAX_DIM];
    for (size_t i = 0; i < HEADS * head_dim; i++)
        x[i] = before[i] = (float)sin((double)i * 1.7);
    for (size_t i = 0; i < head_dim / 2; i++) {
        rotation[2 * i] = (float)cos((double)i * 0.9 + 0.3);
        rotation[2 * i + 1] = (float)sin((double)i * 0.9 + 0.3);
    }
    kernels(level)->rope(x, HEADS, head_dim, pairing, rotation);
    for (size_t h = 0; h < HEADS; h++)
        for (size_t i = 0; i < head_dim / 2; i++) {
            size_t a = h * head_dim + (pairing == ROPE_HALVES ? i : 2 * i);
            size_t b = pairing == ROPE_HALVES ? a + head_dim / 2 : a + 1;
            double c = (double)rotation[2 * i], s = (double)rotation[2 * i + 1];
            assert_true(fabs((double)x[a] - ((double)before[a] * c - (double)before[b] * s)) <= 3 * 0x1p-24);
            assert_true(fabs((double)x[b] - ((double)before[a] * s + (double)before[b] * c)) <= 3 * 0x1p-24);
        }
}

static void test_rope(void **state) {
    (void)state;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t head_dim = 8; head_dim <= 72; head_dim += 8) {
            check_rope(level, head_dim, ROPE_INTERLEAVED);
            check_rope(level, head_dim, ROPE_HALVES);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_matches_gguf_package),
        cmocka_unit_test(test_decode_int8_groups),
        cmocka_unit_test(test_half_conversions),
        cmocka_unit_test(test_half_rounding),
        cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
