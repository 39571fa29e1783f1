/* What the packed form of a weight matrix is for each type: how many bits a code has, what shares a scale, and how
 * large the parts of a panel are (packed_matrix.h describes it). For C, and for CUDA's kernels, which are made from
 * rows of this table: where a format is a constant, so is what these functions give. */
#ifndef STOWKV_PACKED_FORMAT_H
#define STOWKV_PACKED_FORMAT_H

#include "base/bit_planes.h"
#include "base/tensor.h"

#define PANEL_ROWS   PLANE_LANES
#define PACKED_BLOCK LANE_CODES /* columns */

typedef enum PackedScales {
    PACKED_HALF,     /* FP16 scale of each run */
    PACKED_HALF_MIN, /* FP16 scale and minimum of each run */
    PACKED_FLOAT,    /* F32 scale of each run */
    PACKED_K,        /* for 256 columns an FP16 scale, then for each run an INT8 factor of it */
    PACKED_K_MIN     /* for 256 columns FP16 scale and minimum, then for each run 8-bit factors of both */
} PackedScales;

/* An element is scale * (code - bias), or scale * code + minimum; PACKED_K_MIN: minus the minimum. */
typedef struct PackedFormat {
    uint8_t bits; /* of a code; 0: floats, not codes */
    uint8_t bias;
    uint8_t run; /* columns that share a scale: 16 or 32 */
    PackedScales scales;
} PackedFormat;

/* clang-format off */
#define CODED_TYPES(DO)                                                                                                \
    /* type         bits bias run scales */                                                                            \
    DO(TYPE_Q4_0,       4,   8, 32, PACKED_HALF)                                                                       \
    DO(TYPE_Q4_1,       4,   0, 32, PACKED_HALF_MIN)                                                                   \
    DO(TYPE_Q5_0,       5,  16, 32, PACKED_HALF)                                                                       \
    DO(TYPE_Q5_1,       5,   0, 32, PACKED_HALF_MIN)                                                                   \
    DO(TYPE_Q8_0,       8, 128, 32, PACKED_HALF)                                                                       \
    DO(TYPE_Q2_K,       2,   0, 16, PACKED_K_MIN)                                                                      \
    DO(TYPE_Q3_K,       3,   4, 16, PACKED_K)                                                                          \
    DO(TYPE_Q4_K,       4,   0, 32, PACKED_K_MIN)                                                                      \
    DO(TYPE_Q5_K,       5,   0, 32, PACKED_K_MIN)                                                                      \
    DO(TYPE_Q6_K,       6,  32, 16, PACKED_K)                                                                          \
    DO(TYPE_I8_GROUPED, 8, 128, 32, PACKED_FLOAT)
#define FLOAT_TYPES(DO) DO(TYPE_F32) DO(TYPE_F16) DO(TYPE_BF16)
/* clang-format on */

CONSTANT_INLINE bool packed_has_minima(const PackedFormat *format) {
    return format->scales == PACKED_HALF_MIN || format->scales == PACKED_K_MIN;
}

/* Blocks of a stripe: as many as have whole cache lines of scales. */
CONSTANT_INLINE size_t packed_stripe_blocks(const PackedFormat *format) {
    return format->scales == PACKED_HALF ? 2 : format->scales == PACKED_K || format->scales == PACKED_K_MIN ? 8 : 1;
}

/* Of the K formats: where the factors begin in a stripe's scales. */
CONSTANT_INLINE size_t packed_k_factors(const PackedFormat *format) {
    return (packed_has_minima(format) ? 2u : 1u) * PANEL_ROWS * sizeof(uint16_t);
}

CONSTANT_INLINE size_t packed_scales_bytes(const PackedFormat *format) {
    size_t n_factors = 256u / format->run * (packed_has_minima(format) ? 2u : 1u);
    bool k = format->scales == PACKED_K || format->scales == PACKED_K_MIN;
    return k ? (packed_k_factors(format) + n_factors * PANEL_ROWS + 63) / 64 * 64 : 64;
}

CONSTANT_INLINE size_t packed_block_bytes(const PackedFormat *format) {
    return planes_bytes(format->bits);
}

CONSTANT_INLINE size_t packed_stripe_bytes(const PackedFormat *format) {
    return packed_scales_bytes(format) + packed_stripe_blocks(format) * packed_block_bytes(format);
}

#endif
