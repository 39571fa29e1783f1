/* Weight matrices as the backends' products read them: 16 rows interleaved in a panel, so that a row is a lane of a
 * vector and no sum goes across lanes. Packing keeps every bit of the file's codes and scales.
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

#include "model/packed_format.h"

#define PACKED_FORMAT(type, bits, bias, run, scales) [type] = {bits, bias, run, scales},
static const PackedFormat PACKED_FORMATS[TENSOR_TYPE_COUNT] = {CODED_TYPES(PACKED_FORMAT)};
#undef PACKED_FORMAT

static inline bool packed_is_coded(TensorType type) {
    return PACKED_FORMATS[type].bits > 0;
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

/* Packs panels where they are to lie: `panels` is that of panel_begin, (panel_end - panel_begin, panel_bytes), aligned
 * to 64, zeroed. A backend whose memory is a device's packs and copies a range at a time. */
void packed_panels_fill(const PackedMatrix *packed, const Tensor *tensor, size_t panel_begin, size_t panel_end,
                        uint8_t *panels);

static inline void packed_matrix_fill(const PackedMatrix *packed, const Tensor *tensor, size_t panel_begin,
                                      size_t panel_end) {
    packed_panels_fill(packed, tensor, panel_begin, panel_end, packed->data + panel_begin * packed->panel_bytes);
}

/* One row in F32, the same bits that decoding the tensor gives: where output and embedding are tied, the embedding is
 * read from the packed matrix. */
void packed_matrix_row(const PackedMatrix *packed, size_t row, float *out); // (n_columns)

#endif
