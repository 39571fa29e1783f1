/* Scales, minima and codes of single numbers and blocks: the arithmetic of the encoders, for the host's loops
 * (scaled.c, nf4.c, tensor.c) and a device's kernels. Without fused operations all of them give the same bits. */
#ifndef STOWKV_CODEC_FIT_H
#define STOWKV_CODEC_FIT_H

#include "kvcache/codec/format.h"
#include "kvcache/codec/fp8.h"
#include "kvcache/codec/half.h"

#include <math.h>

/* To the nearest integer, ties to even, for |x| < 2^22; unlike rintf() it vectorizes on every machine. */
static HOST_DEVICE inline float round_even(float x) {
    return (x + 12582912.0f) - 12582912.0f;
}

/* A NaN becomes `low`. */
static HOST_DEVICE inline float clamp(float x, float low, float high) {
    x = x > low ? x : low;
    return x < high ? x : high;
}

/* ---- Rows that are longer than a head */

/* What stands behind a head's elements: a number within the range of the block that they end in, or the mean magnitude
 * where that is the scale. Rotated elements share all scales, and zeros add nothing to any. */
static HOST_DEVICE inline float kv_padding(KvCodeKind kind, bool rotated, const float *head, size_t head_dim) {
    float sum = 0.0f;
    if (rotated || kind != KV_CODE_SIGN)
        return rotated ? 0.0f : head[head_dim - 1];
    for (size_t i = 0; i < head_dim; i++)
        sum += fabsf(head[i]);
    return sum / (float)head_dim;
}

/* ---- Records with FP16 scales: all KV_SCALED ones but nf4's */

/* The range of numbers that share a scale. */
typedef struct KvRange {
    float low, high;
    float sum;   /* of magnitudes */
    float taint; /* 0; NaN where a number is not finite */
} KvRange;

typedef struct KvFit {
    uint16_t scale, minimum;
} KvFit;

/* The half nearest to range / levels; the next larger one where rounding down (a lot among subnormals) would leave
 * the end of the range more than `slack` scales beyond the last level. */
static HOST_DEVICE inline uint16_t kv_fit_scale(float range, float levels, float slack) {
    uint16_t scale = half_saturated(range / levels);
    if (half_to_float(scale) * (levels + slack) < range && half_to_float(scale) < HALF_MAX)
        scale++;
    return scale;
}

/* For n numbers of this range. */
static HOST_DEVICE inline KvFit kv_fit_range(KvCodeKind kind, int bits, const KvRange *range, size_t n) {
    float low = range->low, high = range->high, magnitude = -low > high ? -low : high;
    KvFit fit = {0, 0};
    if (range->taint != 0.0f) { /* NaN is unequal to all */
        fit.scale = fit.minimum = HALF_NAN;
        return fit;
    }
    switch (kind) {
    case KV_CODE_SIGNED:
        fit.scale = kv_fit_scale(magnitude, 127.0f, 0.5f);
        break;
    case KV_CODE_E4M3: /* up to 448 + 16, half way to the next value of the grid, 480 */
        fit.scale = kv_fit_scale(magnitude, FP8_MAX, 16.0f);
        break;
    case KV_CODE_SIGN:
        fit.scale = half_saturated(range->sum / (float)n);
        break;
    case KV_CODE_UNSIGNED: /* from a minimum that is not above any number */
        fit.minimum = half_floor(low);
        fit.scale = kv_fit_scale(high - half_to_float(fit.minimum), (float)((1 << bits) - 1), 0.5f);
        break;
    case KV_CODE_HALF: /* has no scale */
    case KV_CODE_OFFSET:
    case KV_CODE_NF4: /* other functions */
        break;
    }
    return fit;
}

static HOST_DEVICE inline uint8_t kv_rounded_code(float x, float scale, float minimum, float low, float high) {
    float code = round_even(clamp((x - minimum) / scale, low, high));
    return (uint8_t)(int)(scale > 0 ? code : 0.0f);
}

/* The code of a number under its scale and minimum as stored; 0 where the scale is 0 or NaN. */
static HOST_DEVICE inline uint8_t kv_scaled_code(KvCodeKind kind, int bits, float x, float scale, float minimum) {
    switch (kind) {
    case KV_CODE_SIGNED:
        return kv_rounded_code(x, scale, minimum, -127.0f, 127.0f);
    case KV_CODE_UNSIGNED:
        return kv_rounded_code(x, scale, minimum, 0.0f, (float)((1 << bits) - 1));
    case KV_CODE_SIGN:
        return x < 0;
    case KV_CODE_E4M3:
        return scale > 0 ? fp8_from_float(x / scale) : 0;
    case KV_CODE_HALF:
    case KV_CODE_OFFSET:
    case KV_CODE_NF4:
        break;
    }
    return 0;
}

/* ---- nf4: its scales are codes too, see nf4.c */

typedef struct KvNf4Scales {
    float minimum, step; /* scale = minimum + step * code */
} KvNf4Scales;

/* The largest magnitude, or NaN where a number is not finite. */
static HOST_DEVICE inline float kv_nf4_block_scale(const float *x) { /* (KV_NF4_BLOCK) */
    float largest = 0.0f, taint = 0.0f;
    for (size_t j = 0; j < KV_NF4_BLOCK; j++) {
        float magnitude = fabsf(x[j]);
        largest = magnitude > largest ? magnitude : largest;
        taint += x[j] - x[j];
    }
    return largest + taint;
}

/* Minimum and step of a record, from its least and largest finite scale. */
static HOST_DEVICE inline uint16_t kv_nf4_minimum(float low, float high) {
    return half_floor(low < high ? low : high);
}

static HOST_DEVICE inline uint16_t kv_nf4_step(uint16_t minimum, float high) {
    return half_ceil((high - half_to_float(minimum)) / KV_NF4_MAX_SCALE);
}

static HOST_DEVICE inline uint8_t kv_nf4_scale_code(const KvNf4Scales *scales, float scale) {
    if (scale != scale)
        return KV_NF4_SCALE_NAN;
    if (scales->step == 0)
        return 0;
    float steps = clamp((scale - scales->minimum) / scales->step, 0, KV_NF4_MAX_SCALE);
    int code = (int)steps;
    code += steps > (float)code;
    if (code < KV_NF4_MAX_SCALE && scales->minimum + scales->step * (float)code < scale)
        code++;
    return (uint8_t)code;
}

/* The nearest level is as many levels up as there are midpoints below the number; of two equally near ones it is the
 * one nearer to zero, so that a block of zeros gets the level zero and does not decode to -0. */
static HOST_DEVICE inline float kv_nf4_midpoint(float level, float next, float scale) {
    return (level + next) / 2 * scale;
}

/* Whether a number belongs above the midpoint of levels i and i + 1. */
static HOST_DEVICE inline bool kv_nf4_is_above(float x, size_t i, float midpoint) {
    return i < KV_NF4_ZERO ? x >= midpoint : x > midpoint;
}

/* ---- GGML's blocks, with the formulas and the order of roundings of its reference; all numbers are finite */

#define KV_GGML_BLOCK 32 /* numbers of each of its formats here */

/* Codes of q4_0 and q5_0: x = d * (code - 2^(bits - 1)), where d makes the number of the largest magnitude code 0. */
static HOST_DEVICE inline float kv_symmetric_codes(const float *x, int bits, uint8_t *codes) { /* (KV_GGML_BLOCK) */
    float largest = x[0], middle = (float)(1 << (bits - 1));
    for (int j = 1; j < KV_GGML_BLOCK; j++)
        if (fabsf(x[j]) > fabsf(largest))
            largest = x[j];
    float d = clamp(largest / -middle, -HALF_MAX, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    for (int j = 0; j < KV_GGML_BLOCK; j++)
        codes[j] = (uint8_t)clamp(x[j] * inverse + (middle + 0.5f), 0.0f, 2 * middle - 1);
    return d;
}

/* Codes of q4_1 and q5_1: x = minimum + d * code. */
static HOST_DEVICE inline float kv_asymmetric_codes(const float *x, int bits, uint8_t *codes, float *minimum) {
    float low = x[0], high = x[0], levels = (float)((1 << bits) - 1);
    for (int j = 1; j < KV_GGML_BLOCK; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    low = clamp(low, -HALF_MAX, HALF_MAX);
    float d = clamp((high - low) / levels, 0.0f, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    for (int j = 0; j < KV_GGML_BLOCK; j++)
        codes[j] = (uint8_t)clamp((x[j] - low) * inverse + 0.5f, 0.0f, levels);
    *minimum = low;
    return d;
}

/* Codes of q8_0, rounded to nearest, ties away from zero: x = d * code. */
static HOST_DEVICE inline float kv_q8_0_codes(const float *x, uint8_t *codes) {
    float largest = 0.0f;
    for (int j = 0; j < KV_GGML_BLOCK; j++)
        largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    float d = clamp(largest / 127.0f, 0.0f, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    for (int j = 0; j < KV_GGML_BLOCK; j++) {
        float magnitude = clamp(fabsf(x[j] * inverse), 0.0f, 127.0f);
        int code = (int)magnitude;
        code += magnitude - (float)code >= 0.5f;
        codes[j] = (uint8_t)(x[j] < 0 ? -code : code);
    }
    return d;
}

#endif
