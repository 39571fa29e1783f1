/* FP16 as scales and minima need it: finite numbers stay finite, and roundings have a direction. */
#ifndef STOWKV_CODEC_HALF_H
#define STOWKV_CODEC_HALF_H

#include "base/half.h"

#define HALF_NAN 0x7e00
#define HALF_MAX 65504.0f

/* The nearest half; beyond the largest one, that one: a finite number stays finite. */
static HOST_DEVICE inline uint16_t half_saturated(float value) {
    value = value > HALF_MAX ? HALF_MAX : value;
    return half_from_float(value < -HALF_MAX ? -HALF_MAX : value);
}

/* The largest half that is not above the value (saturated). */
static HOST_DEVICE inline uint16_t half_floor(float value) {
    uint16_t half = half_saturated(value);
    if (half_to_float(half) > value && value >= -HALF_MAX)
        half = (uint16_t)(half & 0x8000 ? half + 1 : half - 1);
    return half;
}

/* The smallest half that is not below the value (saturated). */
static HOST_DEVICE inline uint16_t half_ceil(float value) {
    return half_floor(-value) ^ 0x8000;
}

static HOST_DEVICE inline void half_store(uint8_t *to, uint16_t half) {
    memcpy(to, &half, sizeof half);
}

static HOST_DEVICE inline float half_load(const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    return half_to_float(half);
}

#endif
