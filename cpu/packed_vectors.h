/* Packed weights in registers, for the sources of matmul.h's table: to be included by sources of stowkv_simd_library()
 * only. Inlined with a row of PACKED_FORMATS, a constant, each function is left with that format's instructions. */
#ifndef STOWKV_PACKED_VECTORS_H
#define STOWKV_PACKED_VECTORS_H

#include "base/simd/bit_planes.h"
#include "base/simd/codes.h"
#include "cpu/activation_strips.h"
#include "model/packed_matrix.h"

#define PANEL_VECS (PANEL_ROWS / VEC_LANES)

/* Codes of a step's four columns, for the VEC_LANES rows of the panel's vector `vec`. */
INLINE VecInt step_codes(const PackedFormat *format, const uint8_t *block, size_t step, size_t vec) {
    return planes_step(block + vec * sizeof(VecInt), format->bits, step);
}

static inline bool has_wide_codes(const PackedFormat *format) {
    return format->bits == 8;
}

/* Scales and minima, which are to be added, of run `run` of a stripe, in F32. */
INLINE void run_scales(const PackedFormat *format, const uint8_t *scales, size_t run, size_t vec, Vec *scale,
                       Vec *minimum) {
    const uint16_t *halves = (const uint16_t *)(const void *)scales + vec * VEC_LANES;
    *minimum = vec_zero();
    if (format->scales == PACKED_HALF) {
        *scale = vec_load_half(halves + run * PANEL_ROWS);
    } else if (format->scales == PACKED_HALF_MIN) {
        *scale = vec_load_half(halves);
        *minimum = vec_load_half(halves + PANEL_ROWS);
    } else if (format->scales == PACKED_FLOAT) {
        *scale = vec_load((const float *)(const void *)scales + vec * VEC_LANES);
    } else {
        size_t kinds = packed_has_minima(format) ? 2 : 1;
        const uint8_t *factors = scales + packed_k_factors(format) + run * kinds * PANEL_ROWS + vec * VEC_LANES;
        *scale = vec_mul(vec_load_half(halves), vec_load_i8((const int8_t *)factors));
        if (kinds == 2)
            *minimum = vec_mul(vec_mul(vec_load_half(halves + PANEL_ROWS), vec_load_u8(factors + PANEL_ROWS)),
                               vec_set1(-1.0f));
    }
}

INLINE float strip_float(const int32_t *strip, size_t stride, size_t word) {
    float value;
    memcpy(&value, strip + word * stride, sizeof value);
    return value;
}

/* total += scale * s * (sum - bias * sum of x) + minimum * s * (sum of x); `part` 0: the block, 1 and 2: its halves. */
INLINE Vec add_run(const PackedFormat *format, Vec total, VecInt sum, Vec scale, Vec minimum, const int32_t *strip,
                   size_t stride, size_t part) {
    if (format->bias > 0)
        sum = vec_int_sub(sum, vec_int_set1(format->bias * strip[(STRIP_SUMS + part) * stride]));
    scale = vec_mul(scale, vec_set1(strip_float(strip, stride, STRIP_SCALE)));
    total = vec_fma(vec_int_to_float(sum), scale, total);
    if (packed_has_minima(format))
        total = vec_fma(minimum, vec_set1(strip_float(strip, stride, STRIP_OFFSETS + part)), total);
    return total;
}

INLINE Vec load_floats(TensorType type, const uint8_t *floats, size_t index) {
    const uint16_t *halves = (const uint16_t *)(const void *)floats + index;
    if (type == TYPE_F16)
        return vec_load_half(halves);
    return type == TYPE_BF16 ? vec_load_bf16(halves) : vec_load((const float *)(const void *)floats + index);
}

#endif
