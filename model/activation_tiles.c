/* Activations as products read them, compiled once for each instruction set; see matmul.h. */
#include "model/packed_vectors.h"

#include <float.h>
#include <math.h>

static float largest_magnitude(const float x[PACKED_BLOCK]) {
    Vec v[PACKED_BLOCK / VEC_LANES];
    for (size_t i = 0; i < PACKED_BLOCK / VEC_LANES; i++)
        v[i] = vec_load(x + i * VEC_LANES);
    return vec_largest_magnitude(v, PACKED_BLOCK / VEC_LANES);
}

/* One token's block: planes as bytes, and the sums of both halves. */
INLINE void split_block(const float x[PACKED_BLOCK], float inverse, int8_t high[PACKED_BLOCK], int8_t low[PACKED_BLOCK],
                        int32_t sums[2]) {
    for (size_t half = 0; half < 2; half++) {
        VecInt sum = vec_int_zero();
        for (size_t j = half * 16; j < half * 16 + 16; j += VEC_LANES) {
            VecInt whole = vec_int_round(vec_mul(vec_load(x + j), vec_set1(inverse)));
            VecInt upper = vec_int_shift_right_signed(vec_int_add(whole, vec_int_set1(128)), 8);
            vec_int_store_bytes(high + j, upper);
            vec_int_store_bytes(low + j, vec_int_sub(whole, vec_int_shift_left(upper, 8)));
            sum = vec_int_add(sum, whole);
        }
        sums[half] = vec_int_sum(sum);
    }
}

static void put_float(int32_t *to, float value) {
    memcpy(to, &value, sizeof value);
}

/* Steps of 4 bytes to words that are `stride` apart. */
INLINE void spread_steps(const int8_t bytes[PACKED_BLOCK], size_t stride, int32_t *out) {
    int32_t words[PACKED_STEPS];
    memcpy(words, bytes, sizeof words);
    for (size_t s = 0; s < PACKED_STEPS; s++)
        out[s * stride] = words[s];
}

INLINE void block_to_planes(const float x[PACKED_BLOCK], size_t stride, int32_t *out) {
    int8_t spread_high[PACKED_BLOCK], spread_low[PACKED_BLOCK];
    int8_t *high = stride == 1 ? (int8_t *)(out + PLANE_HIGH) : spread_high;
    int8_t *low = stride == 1 ? (int8_t *)(out + PLANE_LOW) : spread_low;
    static const float ZEROS[PACKED_BLOCK];
    int32_t sums[3];
    float scale = largest_magnitude(x) / 32639.0f; /* 127 * 256 + 127 */
    bool finite = scale <= FLT_MAX;
    if (scale < FLT_MIN) /* too small to have an inverse: zero */
        scale = 0.0f;
    if (!finite) /* the scale alone says so */
        x = ZEROS;
    split_block(x, scale > 0 ? 1.0f / scale : 0.0f, high, low, sums + 1);
    sums[0] = sums[1] + sums[2];
    scale = finite ? scale : NAN;
    if (stride != 1) {
        spread_steps(high, stride, out + PLANE_HIGH * stride);
        spread_steps(low, stride, out + PLANE_LOW * stride);
    }
    put_float(out + PLANE_SCALE * stride, scale);
    for (size_t i = 0; i < 3; i++) {
        out[(PLANE_SUMS + i) * stride] = sums[i];
        put_float(out + (PLANE_OFFSETS + i) * stride, scale * (float)sums[i]);
    }
}

INLINE void token_to_planes(const float *x, size_t n_columns, size_t stride, int32_t *planes) {
    for (size_t b = 0; b < n_columns / PACKED_BLOCK; b++)
        block_to_planes(x + b * PACKED_BLOCK, stride, planes + b * PLANE_INTS * stride);
}

void SIMD_NAME(to_planes)(const float *x, size_t n_tokens, size_t n_columns, size_t stride, int32_t *planes) {
    if (stride == 1) {
        token_to_planes(x, n_columns, 1, planes);
        return;
    }
    if (n_tokens < TOKEN_TILE)
        memset(planes, 0, n_columns / PACKED_BLOCK * PLANE_INTS * TOKEN_TILE * sizeof *planes);
    for (size_t t = 0; t < n_tokens; t++)
        token_to_planes(x + t * n_columns, n_columns, TOKEN_TILE, planes + t);
}

void SIMD_NAME(to_columns)(const float *x, size_t n_tokens, size_t n_columns, float *columns) {
    for (size_t c = 0; c < n_columns; c++)
        for (size_t t = 0; t < TOKEN_TILE; t++)
            columns[c * TOKEN_TILE + t] = t < n_tokens ? x[t * n_columns + c] : 0.0f;
}
