/* Products with many tokens, and the table of all products, compiled once for each instruction set; see matmul.h. */
#include "cpu/matmul.h"

#include "cpu/packed_vectors.h"
#include "cpu/strip_tokens.h"

/* Vectors of rows that a strip of tokens meets at once. */
#if VEC_LANES == 16
#define PAIR_VECS 2 /* a vector is the rows of a panel */
#elif VEC_LANES == 8
#define PAIR_VECS 2 /* two vectors are a panel: a pair goes in two turns */
#else
#define PAIR_VECS 4
#endif

/* A pair of panels as the products of many tokens read it, in `scratch`. */
typedef struct Unpacked {
    uint8_t *codes; /* (2, n_blocks, PLANE_STEPS, PIECE_BYTES) */
    float *scales;  /* (2, n_runs, PANEL_ROWS) */
    float *minima;  /* the same */
    size_t n_blocks, n_runs;
} Unpacked;

/* Codes take a quarter of the scratch; scales and minima, with runs of 16 columns or more, at most an eighth. */
static Unpacked lay_out(const PackedFormat *format, size_t n_columns, void *scratch) {
    size_t n_blocks = n_columns / PACKED_BLOCK, n_runs = n_columns / format->run;
    uint8_t *codes = scratch;
    float *scales = (float *)(void *)(codes + 2 * n_blocks * PLANE_STEPS * PIECE_BYTES);
    return (Unpacked){codes, scales, scales + 2 * n_runs * PANEL_ROWS, n_blocks, n_runs};
}

INLINE void unpack_block(const PackedFormat *format, const uint8_t *block, uint8_t *codes) {
    for (size_t s = 0; s < PLANE_STEPS; s++)
        for (size_t v = 0; v < PANEL_VECS; v++)
            vec_int_store(codes + s * PIECE_BYTES + v * sizeof(VecInt), step_codes(format, block, s, v));
}

INLINE void unpack_run(const PackedFormat *format, const uint8_t *stripe, size_t run, float *scales, float *minima) {
    for (size_t v = 0; v < PANEL_VECS; v++) {
        Vec scale, minimum;
        run_scales(format, stripe, run, v, &scale, &minimum);
        vec_store(scales + v * VEC_LANES, scale);
        if (packed_has_minima(format))
            vec_store(minima + v * VEC_LANES, minimum);
    }
}

INLINE void unpack_panel(const PackedFormat *format, const uint8_t *panel, size_t index, const Unpacked *out) {
    size_t stripe_blocks = packed_stripe_blocks(format), n_runs = PACKED_BLOCK / format->run;
    for (size_t b = 0; b < out->n_blocks; b++) {
        const uint8_t *stripe = panel + b / stripe_blocks * packed_stripe_bytes(format);
        size_t in_stripe = b % stripe_blocks, first = index * out->n_runs + b * n_runs;
        unpack_block(format, stripe + packed_scales_bytes(format) + in_stripe * packed_block_bytes(format),
                     out->codes + (index * out->n_blocks + b) * PLANE_STEPS * PIECE_BYTES);
        for (size_t run = 0; run < n_runs; run++)
            unpack_run(format, stripe, in_stripe * n_runs + run, out->scales + (first + run) * PANEL_ROWS,
                       out->minima + (first + run) * PANEL_ROWS);
    }
}

/* Vector v of a turn over a pair: which panel, and which vector of it. */
INLINE size_t panel_of(size_t turn, size_t v) {
    return (turn * PAIR_VECS + v) / PANEL_VECS;
}

INLINE size_t vec_of(size_t turn, size_t v) {
    return (turn * PAIR_VECS + v) % PANEL_VECS;
}

/* sums += one part of the products of some steps. */
INLINE void dot_part(const PackedFormat *format, size_t n_tokens, const uint8_t *const codes[PAIR_VECS],
                     const int32_t *words, size_t part, size_t first, size_t n_steps,
                     VecInt sums[STRIP_TOKENS][PAIR_VECS]) {
#pragma GCC unroll 1 /* unrolled, GCC 12 keeps the sums in memory */
    for (size_t s = first; s < first + n_steps; s++) {
        VecInt steps[PAIR_VECS];
        for (size_t v = 0; v < PAIR_VECS; v++)
            steps[v] = code_part(vec_int_load(codes[v] + s * PIECE_BYTES), part);
        for (size_t t = 0; t < n_tokens; t++) {
            VecInt x = vec_int_set1(words[quantized_word(PLANE_STEPS, s, part) * STRIP_TOKENS + t]);
            for (size_t v = 0; v < PAIR_VECS; v++)
                sums[t][v] = code_dot(has_wide_codes(format), sums[t][v], steps[v], x);
        }
    }
}

/* A turn over a pair by a strip of tokens. The sums of part 1 start from those of part 0, weighed. A constant n_tokens
 * keeps sums in registers. */
INLINE void strip_coded(const PackedFormat *format, size_t n_tokens, const Unpacked *w, size_t turn,
                        const int32_t *strip, Vec totals[STRIP_TOKENS][PAIR_VECS]) {
    size_t n_runs = PACKED_BLOCK / format->run, run_steps = PLANE_STEPS / n_runs;
    const uint8_t *codes[PAIR_VECS];
    for (size_t v = 0; v < PAIR_VECS; v++)
        codes[v] =
            w->codes + panel_of(turn, v) * w->n_blocks * PLANE_STEPS * PIECE_BYTES + vec_of(turn, v) * sizeof(VecInt);
    for (size_t b = 0; b < w->n_blocks; b++, strip += STRIP_INTS * STRIP_TOKENS) {
        for (size_t run = 0; run < n_runs; run++) {
            VecInt sums[STRIP_TOKENS][PAIR_VECS];
            for (size_t t = 0; t < n_tokens; t++)
                for (size_t v = 0; v < PAIR_VECS; v++)
                    sums[t][v] = vec_int_zero();
            dot_part(format, n_tokens, codes, strip + STRIP_WORDS * STRIP_TOKENS, 0, run * run_steps, run_steps, sums);
            for (size_t t = 0; t < n_tokens; t++)
                for (size_t v = 0; v < PAIR_VECS; v++)
                    sums[t][v] = code_weigh(sums[t][v]);
            dot_part(format, n_tokens, codes, strip + STRIP_WORDS * STRIP_TOKENS, 1, run * run_steps, run_steps, sums);
            for (size_t v = 0; v < PAIR_VECS; v++) {
                size_t at =
                    (panel_of(turn, v) * w->n_runs + b * n_runs + run) * PANEL_ROWS + vec_of(turn, v) * VEC_LANES;
                Vec scale = vec_load(w->scales + at);
                Vec minimum = packed_has_minima(format) ? vec_load(w->minima + at) : vec_zero();
                for (size_t t = 0; t < n_tokens; t++)
                    totals[t][v] = add_run(format, totals[t][v], sums[t][v], scale, minimum, strip + t, STRIP_TOKENS,
                                           n_runs == 1 ? 0 : run + 1);
            }
        }
        for (size_t v = 0; v < PAIR_VECS; v++)
            codes[v] += PLANE_STEPS * PIECE_BYTES;
    }
}

INLINE void strip_floats(size_t n_tokens, const float *floats, size_t n_columns, size_t turn, const float *columns,
                         Vec totals[STRIP_TOKENS][PAIR_VECS]) {
    for (size_t c = 0; c < n_columns; c++) {
        Vec w[PAIR_VECS];
        for (size_t v = 0; v < PAIR_VECS; v++)
            w[v] = vec_load(floats + (panel_of(turn, v) * n_columns + c) * PANEL_ROWS + vec_of(turn, v) * VEC_LANES);
        for (size_t t = 0; t < n_tokens; t++) {
            Vec x = vec_set1(columns[c * STRIP_TOKENS + t]);
            for (size_t v = 0; v < PAIR_VECS; v++)
                totals[t][v] = vec_fma(w[v], x, totals[t][v]);
        }
    }
}

/* One turn by one strip: computed for n_computed tokens, a constant, and stored for n_tokens to y, which begins
 * at the strip's first. `format` NULL: floats. */
INLINE void turn_by_strip(const PackedFormat *format, size_t n_computed, const PackedMatrix *w,
                          const Unpacked *unpacked, size_t pair, size_t turn, const void *strip, size_t n_tokens,
                          float *y) {
    Vec totals[STRIP_TOKENS][PAIR_VECS];
    for (size_t t = 0; t < n_computed; t++)
        for (size_t v = 0; v < PAIR_VECS; v++)
            totals[t][v] = vec_zero();
    if (format != NULL)
        strip_coded(format, n_computed, unpacked, turn, strip, totals);
    else
        strip_floats(n_computed, (const float *)(const void *)unpacked->codes, w->n_columns, turn, strip, totals);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t v = 0; v < PAIR_VECS; v++) {
            size_t row = (2 * pair + panel_of(turn, v)) * PANEL_ROWS + vec_of(turn, v) * VEC_LANES;
            float *out = y + t * w->n_rows + row;
            if (row + VEC_LANES <= w->n_rows)
                vec_store(out, totals[t][v]);
            else if (row < w->n_rows)
                vec_store_partial(out, totals[t][v], w->n_rows - row);
        }
}

/* An unpacked pair by all tokens. The last strip is computed for fewer tokens if it has fewer. */
INLINE void pair_by_tokens(const PackedFormat *format, const PackedMatrix *w, const Unpacked *unpacked, size_t pair,
                           const void *strips, size_t n_tokens, float *y) {
    size_t strip_words = activation_strip_words(w->type, w->n_columns, STRIP_TOKENS);
    for (size_t t = 0; t < n_tokens; t += STRIP_TOKENS) {
        const int32_t *strip = (const int32_t *)strips + t / STRIP_TOKENS * strip_words;
        float *out = y + t * w->n_rows;
        size_t n = n_tokens - t < STRIP_TOKENS ? n_tokens - t : STRIP_TOKENS;
        for (size_t turn = 0; turn < 2 * PANEL_VECS / PAIR_VECS; turn++) {
            if (n <= STRIP_TOKENS / 3)
                turn_by_strip(format, STRIP_TOKENS / 3, w, unpacked, pair, turn, strip, n, out);
            else if (n <= STRIP_TOKENS * 2 / 3)
                turn_by_strip(format, STRIP_TOKENS * 2 / 3, w, unpacked, pair, turn, strip, n, out);
            else
                turn_by_strip(format, STRIP_TOKENS, w, unpacked, pair, turn, strip, n, out);
        }
    }
}

INLINE void matmul_coded(const PackedFormat *format, const PackedMatrix *w, const void *strips, size_t n_tokens,
                         size_t begin, size_t end, void *scratch, float *y) {
    Unpacked unpacked = lay_out(format, w->n_columns, scratch);
    for (size_t pair = begin; pair < end; pair++) {
        for (size_t i = 0; i < 2; i++)
            unpack_panel(format, w->data + (2 * pair + i) * w->panel_bytes, i, &unpacked);
        pair_by_tokens(format, w, &unpacked, pair, strips, n_tokens, y);
    }
}

INLINE void matmul_floats(TensorType type, const PackedMatrix *w, const void *strips, size_t n_tokens, size_t begin,
                          size_t end, void *scratch, float *y) {
    float *floats = scratch;
    size_t panel_floats = w->n_columns * PANEL_ROWS;
    for (size_t pair = begin; pair < end; pair++) {
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < panel_floats; j += VEC_LANES)
                vec_store(floats + i * panel_floats + j,
                          load_floats(type, w->data + (2 * pair + i) * w->panel_bytes, j));
        pair_by_tokens(NULL, w, &(Unpacked){.codes = scratch}, pair, strips, n_tokens, y);
    }
}

#define CODED_MATMUL(type, ...)                                                                                        \
    case type:                                                                                                         \
        matmul_coded(&PACKED_FORMATS[type], w, strips, n_tokens, begin, end, scratch, y);                              \
        break;
#define FLOAT_MATMUL(type)                                                                                             \
    case type:                                                                                                         \
        matmul_floats(type, w, strips, n_tokens, begin, end, scratch, y);                                              \
        break;

static void matmul(const PackedMatrix *w, const void *strips, size_t n_tokens, size_t begin, size_t end, void *scratch,
                   float *y) {
    switch (w->type) {
        CODED_TYPES(CODED_MATMUL)
        FLOAT_TYPES(FLOAT_MATMUL)
    case TENSOR_TYPE_COUNT:
        break;
    }
}

const MatmulKernels SIMD_NAME(matmul_kernels) = {STRIP_TOKENS, SIMD_NAME(to_strip), SIMD_NAME(to_columns),
                                                 SIMD_NAME(matvec), matmul};
