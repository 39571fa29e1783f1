/* Activations as products read them, compiled once for each instruction set; see activation_strips.h. */
#include "cpu/activation_strips.h"

#include "base/simd/codes.h"
#include "cpu/strip_tokens.h"

#include <float.h>
#include <math.h>

static float largest_magnitude(const float x[PACKED_BLOCK]) {
    Vec v[PACKED_BLOCK / VEC_LANES];
    for (size_t i = 0; i < PACKED_BLOCK / VEC_LANES; i++)
        v[i] = vec_load(x + i * VEC_LANES);
    return vec_largest_magnitude(v, PACKED_BLOCK / VEC_LANES);
}

/* Quantizes a token's block to integers, and sums those of each half. */
INLINE void round_block(const float x[PACKED_BLOCK], float inverse, int32_t *words, int32_t sums[2]) {
    for (size_t half = 0; half < 2; half++) {
        VecInt sum = vec_int_zero();
        for (size_t j = half * 16; j < half * 16 + 16; j += VEC_LANES) {
            VecInt whole = vec_int_round(vec_mul(vec_load(x + j), vec_set1(inverse)));
            store_words(words, PLANE_STEPS, j, whole);
            sum = vec_int_add(sum, whole);
        }
        sums[half] = vec_int_sum(sum);
    }
}

static void put_float(int32_t *to, float value) {
    memcpy(to, &value, sizeof value);
}

INLINE void block_to_strip(const float x[PACKED_BLOCK], size_t stride, int32_t *out) {
    static const float ZEROS[PACKED_BLOCK];
    int32_t words[STRIP_SCALE], sums[3];
    float scale = largest_magnitude(x) / QUANTIZED_MAX;
    bool finite = scale <= FLT_MAX;
    if (scale < FLT_MIN) /* too small to have an inverse: zero */
        scale = 0.0f;
    if (!finite) /* the scale, NaN, says so */
        x = ZEROS;
    round_block(x, scale > 0 ? 1.0f / scale : 0.0f, words, sums + 1);
    sums[0] = sums[1] + sums[2];
    scale = finite ? scale : NAN;
    for (size_t i = 0; i < STRIP_SCALE; i++)
        out[(STRIP_WORDS + i) * stride] = words[i];
    put_float(out + STRIP_SCALE * stride, scale);
    for (size_t i = 0; i < 3; i++) {
        out[(STRIP_SUMS + i) * stride] = sums[i];
        put_float(out + (STRIP_OFFSETS + i) * stride, scale * (float)sums[i]);
    }
}

INLINE void token_to_strip(const float *x, size_t n_columns, size_t stride, int32_t *strip) {
    for (size_t b = 0; b < n_columns / PACKED_BLOCK; b++)
        block_to_strip(x + b * PACKED_BLOCK, stride, strip + b * STRIP_INTS * stride);
}

void SIMD_NAME(to_strip)(const float *x, size_t n_tokens, size_t n_columns, size_t stride, int32_t *strip) {
    if (stride == 1) {
        token_to_strip(x, n_columns, 1, strip);
        return;
    }
    if (n_tokens < STRIP_TOKENS)
        memset(strip, 0, n_columns / PACKED_BLOCK * STRIP_INTS * STRIP_TOKENS * sizeof *strip);
    for (size_t t = 0; t < n_tokens; t++)
        token_to_strip(x + t * n_columns, n_columns, STRIP_TOKENS, strip + t);
}

void SIMD_NAME(to_columns)(const float *x, size_t n_tokens, size_t n_columns, float *columns) {
    for (size_t c = 0; c < n_columns; c++)
        for (size_t t = 0; t < STRIP_TOKENS; t++)
            columns[c * STRIP_TOKENS + t] = t < n_tokens ? x[t * n_columns + c] : 0.0f;
}
