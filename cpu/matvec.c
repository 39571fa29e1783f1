/* Products with one token, compiled once for each instruction set; see matvec.h. They read every weight once, so that
 * memory binds: a panel is one stream, and is prefetched. */
#include "cpu/matvec.h"

#include "cpu/packed_vectors.h"

/* Prefetch distance: enough for the latency of memory, and well below a cache's size. */
#define AHEAD_BYTES 6144

/* The dot product of a run. Even and odd steps have sums of their own, for shorter chains of additions: integers are
 * exact in any order. */
INLINE VecInt dot_run(const PackedFormat *format, const uint8_t *block, size_t vec, const int32_t *words, size_t first,
                      size_t n_steps) {
    VecInt sums[2][CODE_SUMS];
    for (size_t i = 0; i < CODE_SUMS; i++)
        sums[0][i] = sums[1][i] = vec_int_zero();
#pragma GCC unroll 8
    for (size_t s = first; s < first + n_steps; s++) {
        VecInt codes = step_codes(format, block, s, vec);
#pragma GCC unroll 2
        for (size_t part = 0; part < 2; part++) {
            VecInt *sum = &sums[s % 2][part % CODE_SUMS];
            VecInt x = vec_int_set1(words[quantized_word(PLANE_STEPS, s, part)]);
            *sum = code_dot(has_wide_codes(format), *sum, code_part(codes, part), x);
        }
    }
    return vec_int_add(code_total(sums[0]), code_total(sums[1]));
}

INLINE void prefetch_ahead(const uint8_t *from, size_t n) {
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(from + AHEAD_BYTES + i);
}

INLINE void matvec_panel(const PackedFormat *format, const uint8_t *stripe, size_t n_blocks, const int32_t *strip,
                         float y[PANEL_ROWS]) {
    size_t n_runs = PACKED_BLOCK / format->run, run_steps = PLANE_STEPS / n_runs;
    size_t stripe_blocks = packed_stripe_blocks(format), block_bytes = packed_block_bytes(format);
    Vec totals[PANEL_VECS];
    for (size_t v = 0; v < PANEL_VECS; v++)
        totals[v] = vec_zero();
    for (size_t first = 0; first < n_blocks; first += stripe_blocks, stripe += packed_stripe_bytes(format)) {
        const uint8_t *block = stripe + packed_scales_bytes(format);
        prefetch_ahead(stripe, packed_scales_bytes(format));
        for (size_t b = 0; b < stripe_blocks && first + b < n_blocks; b++, block += block_bytes, strip += STRIP_INTS) {
            prefetch_ahead(block, block_bytes);
            for (size_t run = 0; run < n_runs; run++)
                for (size_t v = 0; v < PANEL_VECS; v++) {
                    Vec scale, minimum;
                    run_scales(format, stripe, b * n_runs + run, v, &scale, &minimum);
                    VecInt sum = dot_run(format, block, v, strip + STRIP_WORDS, run * run_steps, run_steps);
                    totals[v] = add_run(format, totals[v], sum, scale, minimum, strip, 1, n_runs == 1 ? 0 : run + 1);
                }
        }
    }
    for (size_t v = 0; v < PANEL_VECS; v++)
        vec_store(y + v * VEC_LANES, totals[v]);
}

/* Two panels at once: a row's sum is one chain of additions, and the latencies of several chains must overlap. */
INLINE void matvec_pair(TensorType type, const uint8_t *panel, size_t panel_bytes, size_t n_columns, const float *x,
                        float y[2 * PANEL_ROWS]) {
    Vec totals[2 * PANEL_VECS];
    for (size_t v = 0; v < 2 * PANEL_VECS; v++)
        totals[v] = vec_zero();
    for (size_t c = 0; c < n_columns; c++) {
        Vec element = vec_set1(x[c]);
        for (size_t v = 0; v < 2 * PANEL_VECS; v++) {
            const uint8_t *floats = panel + v / PANEL_VECS * panel_bytes;
            size_t index = c * PANEL_ROWS + v % PANEL_VECS * VEC_LANES;
            totals[v] = vec_fma(load_floats(type, floats, index), element, totals[v]);
        }
        const uint8_t *column = panel + c * PANEL_ROWS * (type == TYPE_F32 ? sizeof(float) : sizeof(uint16_t));
        __builtin_prefetch(column + AHEAD_BYTES);
        __builtin_prefetch(column + panel_bytes + AHEAD_BYTES);
    }
    for (size_t v = 0; v < 2 * PANEL_VECS; v++)
        vec_store(y + v * VEC_LANES, totals[v]);
}

/* Stores the sums of n rows from `panel` on to y, as far as the matrix has such rows. */
static void put_rows(const PackedMatrix *w, size_t panel, const float *rows, size_t n, float *y) {
    size_t first = panel * PANEL_ROWS, rest = w->n_rows > first ? w->n_rows - first : 0;
    memcpy(y + first, rows, (n < rest ? n : rest) * sizeof *y);
}

INLINE void matvec_coded(const PackedFormat *format, const PackedMatrix *w, const int32_t *strip, size_t begin,
                         size_t end, float *y) {
    float rows[PANEL_ROWS];
    for (size_t p = begin; p < end; p++) {
        matvec_panel(format, w->data + p * w->panel_bytes, w->n_columns / PACKED_BLOCK, strip, rows);
        put_rows(w, p, rows, PANEL_ROWS, y);
    }
}

/* The last of an odd number of panels is computed with a neighbour, whose sums are not stored. */
INLINE void matvec_floats(TensorType type, const PackedMatrix *w, const float *x, size_t begin, size_t end, float *y) {
    float rows[2 * PANEL_ROWS];
    for (size_t p = begin; p < end; p += 2) {
        size_t first = p + 1 < w->n_panels ? p : p - 1, skipped = (p - first) * PANEL_ROWS;
        matvec_pair(type, w->data + first * w->panel_bytes, w->panel_bytes, w->n_columns, x, rows);
        put_rows(w, p, rows + skipped, p + 1 < end ? 2 * PANEL_ROWS : PANEL_ROWS, y);
    }
}

#define CODED_MATVEC(type, ...)                                                                                        \
    case type:                                                                                                         \
        matvec_coded(&PACKED_FORMATS[type], w, x, begin, end, y);                                                      \
        break;
#define FLOAT_MATVEC(type)                                                                                             \
    case type:                                                                                                         \
        matvec_floats(type, w, x, begin, end, y);                                                                      \
        break;
void SIMD_NAME(matvec)(const PackedMatrix *w, const void *x, size_t begin, size_t end, float *y) {
    switch (w->type) {
        CODED_TYPES(CODED_MATVEC)
        FLOAT_TYPES(FLOAT_MATVEC)
    case TENSOR_TYPE_COUNT:
        break;
    }
}
