/* Per-channel symmetric INT8: a matrix K (n_tokens, n_channels), rows of tokens, has a scale for each channel (column),
 *
 *     scale[d] = max over t of |K[t, d]| / 127            one F32 division
 *     code     = K[t, d] / scale[d], to the nearest integer within [-127, 127]; of two equally near ones the even one
 *     decoded  = code * scale[d]                          one F32 product
 *
 * and the quotient is the real one: a code is not rounded twice. Defined, too: a channel of zeros, or of numbers so
 * small that the scale is 0, has codes 0 and decodes to +0; a channel with NaN or an infinity has the scale NaN and
 * codes 0, and decodes to NaN; where a scale would decode 127 to infinity (that of FLT_MAX) it is the next smaller
 * float.
 *
 * Hosts and GPUs compile these functions from the same source; reference.h computes the same in double without them.
 * A kernel keeps the largest magnitude of a channel as bits, which compare as integers, NaN and infinity above all:
 *
 *     uint32_t largest = 0;
 *     for (t = 0; t < n_tokens; t++)
 *         largest = channel_larger(largest, channel_magnitude(k[t * n_channels + d]));   // atomicMax() does as well
 *     float scale = channel_scale(largest), inverse = channel_inverse(scale);
 *     codes[…] = channel_code(k[…], scale, inverse);
 *     decoded[…] = channel_decode(codes[…], scale); */
#ifndef STOWKV_CHANNEL_CODE_H
#define STOWKV_CHANNEL_CODE_H

#include "base/half.h"
#include "base/host_device.h"

#include <math.h>
#include <stdint.h>

#define CHANNEL_LEVELS       127
#define CHANNEL_INFINITY     0x7f800000u /* bits */
#define CHANNEL_NAN          0x7fc00000u
#define CHANNEL_SCALE_BEYOND 0x7c010204u /* 127 times this scale is infinite, and only FLT_MAX has it */

/* How far x * (1 / scale) may be from an integer to have surely the same nearest one as x / scale: inverse and product
 * are off by 2^-24 each, which for quotients up to 127.5 is less than 2^-16. */
#define CHANNEL_SURE (0.5f - 0x1p-16f)

static HOST_DEVICE inline uint32_t channel_magnitude(float x) {
    return float_to_bits(x) & 0x7fffffffu;
}

static HOST_DEVICE inline uint32_t channel_larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* Of the largest magnitude in a channel. */
static HOST_DEVICE inline float channel_scale(uint32_t largest) {
    uint32_t scale = float_to_bits(float_from_bits(largest) / 127.0f);
    scale = scale == CHANNEL_SCALE_BEYOND ? scale - 1 : scale;
    return float_from_bits(largest < CHANNEL_INFINITY ? scale : CHANNEL_NAN);
}

/* 1 / scale; infinite for scales below 2^-128; 0 where all codes are 0. */
static HOST_DEVICE inline float channel_inverse(float scale) {
    return scale > 0 ? 1.0f / scale : 0.0f;
}

/* The code, slowly. A quotient of floats is half way between integers, or at least 2^-26 away from that: far more than
 * the last bit of a double. */
static HOST_DEVICE inline int8_t channel_code_exact(float x, float scale) {
    if (!(scale > 0) || x != x)
        return 0;
    double quotient = rint((double)x / (double)scale);
    quotient = quotient < 127.0 ? quotient : 127.0;
    return (int8_t)(quotient > -127.0 ? quotient : -127.0);
}

/* The code, by a product nearly always (all but one in 30,000). The scale is that of x's channel. */
static HOST_DEVICE inline int8_t channel_code(float x, float scale, float inverse) {
    float quotient = x * inverse, nearest = (quotient + 12582912.0f) - 12582912.0f; /* ties to even below 2^22 */
    if (fabsf(quotient - nearest) < CHANNEL_SURE && fabsf(nearest) < 128.0f) /* neither of NaN */
        return (int8_t)nearest;
    return channel_code_exact(x, scale);
}

static HOST_DEVICE inline float channel_decode(int8_t code, float scale) {
    return (float)code * scale;
}

#endif
