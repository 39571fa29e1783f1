/* IEEE binary16 and bfloat16, as stored in checkpoints and in the cache, one value at a time. Vector code converts with
 * the primitives of base/simd/vectors.h; both agree bit for bit. */
#ifndef STOWKV_HALF_H
#define STOWKV_HALF_H

#include "base/host_device.h"

#include <stdint.h>
#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

static HOST_DEVICE inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static HOST_DEVICE inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static HOST_DEVICE inline float bf16_to_float(uint16_t bf16) {
    return float_from_bits((uint32_t)bf16 << 16);
}

/* Rebases the exponent by a float multiplication, which also normalises subnormals; infinity and NaN are set from the
 * exponent. Neither this nor half_from_float() branches, so that loops vectorize. */
static HOST_DEVICE inline float half_to_float(uint16_t half) {
#if defined(__F16C__) && !defined(__CUDA_ARCH__)
    return _cvtsh_ss(half);
#elif defined(__aarch64__) && !defined(__CUDA_ARCH__)
    __fp16 value;
    memcpy(&value, &half, sizeof value);
    return value;
#else
    int32_t magnitude = (half & 0x7fff) << 13;
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t finite = float_to_bits(float_from_bits((uint32_t)magnitude) * 0x1p112f);
    uint32_t bits = magnitude >= 0x0f800000 ? (uint32_t)magnitude | 0x7f800000 : finite;
    return float_from_bits(bits | sign);
#endif
}

/* Rounds to nearest even; 65520 and above become infinity, as in hardware. A NaN keeps the top of its payload and
 * becomes quiet. Below 2^-14, adding 0.5 aligns the float's last bit with the subnormal's. */
static HOST_DEVICE inline uint16_t half_from_float(float value) {
    uint32_t bits = float_to_bits(value);
    int32_t magnitude = (int32_t)(bits & 0x7fffffff), odd = magnitude >> 13 & 1;
    int32_t normal = (magnitude - 0x38000000 + 0xfff + odd) >> 13;
    int32_t subnormal = (int32_t)float_to_bits(float_from_bits((uint32_t)magnitude) + 0.5f) - 0x3f000000;
    int32_t nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
    int32_t half = magnitude < 0x38800000 ? subnormal : normal;
    half = magnitude >= 0x477ff000 ? 0x7c00 : half; /* 65520 */
    half = magnitude > 0x7f800000 ? nan : half;
    return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)half);
}

#endif
