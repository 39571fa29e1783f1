/* E4M3 of the OCP 8-bit floating point specification: exponent bias 7, three bits of mantissa, the largest value 448,
 * no infinity, NaN 0x7f. */
#ifndef STOWKV_CODEC_FP8_H
#define STOWKV_CODEC_FP8_H

#include "base/half.h"

#define FP8_MAX 448.0f
#define FP8_NAN 0x7f

/* The bits of 2^-8 times the number, as a half: both have their fields in the same order, E4M3 the smaller exponent. */
static HOST_DEVICE inline uint16_t fp8_to_half_bits(uint8_t fp8) {
    uint16_t magnitude = fp8 & 0x7f;
    return (uint16_t)((fp8 & 0x80) << 8 | (magnitude == FP8_NAN ? 0x7e00 : magnitude << 7));
}

static HOST_DEVICE inline float fp8_to_float(uint8_t fp8) {
    return half_to_float(fp8_to_half_bits(fp8)) * 256.0f;
}

/* Rounds to nearest even; finite values beyond the largest become it, an infinity becomes NaN. */
static HOST_DEVICE inline uint8_t fp8_from_float(float value) {
    uint32_t bits = float_to_bits(value);
    uint32_t sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000)
        return (uint8_t)(sign | FP8_NAN);
    if (magnitude >= 0x43e00000) /* 448 */
        return (uint8_t)(sign | 0x7e);
    if (magnitude < 0x3c800000) /* below 2^-6: adding 2^14 lines the subnormal's last bit up with the float's */
        return (uint8_t)(sign | (float_to_bits(float_from_bits(magnitude) + 0x1p14f) - 0x46800000));
    uint32_t odd = magnitude >> 20 & 1;
    return (uint8_t)(sign | ((magnitude - 0x3c000000 + 0x7ffff + odd) >> 20));
}

#endif
