/* Weight matrices as the CPU's products read them: 16 rows interleaved in a panel, so that a row is a lane of a vector
 * and no sum goes across lanes. Packing keeps every bit of the file's codes and scales.
 *
 *     PackedMatrix packed;
 *     packed_matrix_measure(&packed, &tensor);
 *     packed.data = …;                                  // packed.size_bytes, aligned to 64, zeroed
 *     packed_matrix_fill(&packed, &tensor, 0, packed.n_panels);    // any range of panels, on any thread
 *
 * A panel is read from its first byte to its last, in one stream. That of a coded type is a list of stripes, 1, 2 or 8
 * blocks of 32 columns each: first the stripe's scales, then its blocks' codes.
 *
 *     scales  by PackedScales, 16 rows side by side; filled up to a multiple of 64 bytes
 *     codes   a pack of bit planes (base/bit_planes.h): rows are its lanes, four columns a step
 *
 * A panel of a type without codes (F32, F16, BF16): for each column the 16 rows' elements. */
#ifndef STOWKV_PACKED_MATRIX_H
#define STOWKV_PACKED_MATRIX_H

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

#define PACKED_FORMAT(type, bits, bias, run, scales) [type] = {bits, bias, run, scales},
static const PackedFormat PACKED_FORMATS[TENSOR_TYPE_COUNT] = {CODED_TYPES(PACKED_FORMAT)};
#undef PACKED_FORMAT

static inline bool packed_is_coded(TensorType type) {
    return PACKED_FORMATS[type].bits > 0;
}

static inline bool packed_has_minima(const PackedFormat *format) {
    return format->scales == PACKED_HALF_MIN || format->scales == PACKED_K_MIN;
}

/* Blocks of a stripe: as many as have whole cache lines of scales. */
static inline size_t packed_stripe_blocks(const PackedFormat *format) {
    return format->scales == PACKED_HALF ? 2 : format->scales == PACKED_K || format->scales == PACKED_K_MIN ? 8 : 1;
}

/* Of the K formats: where the factors begin in a stripe's scales. */
static inline size_t packed_k_factors(const PackedFormat *format) {
    return (packed_has_minima(format) ? 2u : 1u) * PANEL_ROWS * sizeof(uint16_t);
}

static inline size_t packed_scales_bytes(const PackedFormat *format) {
    size_t n_factors = 256u / format->run * (packed_has_minima(format) ? 2u : 1u);
    bool k = format->scales == PACKED_K || format->scales == PACKED_K_MIN;
    return k ? (packed_k_factors(format) + n_factors * PANEL_ROWS + 63) / 64 * 64 : 64;
}

static inline size_t packed_block_bytes(const PackedFormat *format) {
    return planes_bytes(format->bits);
}

static inline size_t packed_stripe_bytes(const PackedFormat *format) {
    return packed_scales_bytes(format) + packed_stripe_blocks(format) * packed_block_bytes(format);
}

typedef struct PackedMatrix {
    TensorType type; /* F32 where the tensor's groups do not fit blocks (see packed_matrix_measure()) */
    size_t n_columns, n_rows;
    size_t n_panels;    /* even: products take two at once. Rows beyond n_rows are zero */
    size_t panel_bytes; /* a multiple of 64 */
    size_t size_bytes;
    uint8_t *data; /* (n_panels, panel_bytes); not owned */
} PackedMatrix;

/* Sets all but `data`. TYPE_I8_GROUPED whose groups or columns are no multiple of 32 becomes F32: only toy models have
 * such groups. */
void packed_matrix_measure(PackedMatrix *out, const Tensor *tensor);
void packed_matrix_fill(const PackedMatrix *packed, const Tensor *tensor, size_t panel_begin, size_t panel_end);

/* One row in F32, the same bits that decoding the tensor gives: where output and embedding are tied, the embedding is
 * read from the packed matrix. */
void packed_matrix_row(const PackedMatrix *packed, size_t row, float *out); // (n_columns)

#endif
