/* Matrix products, compiled once for each instruction set; see matmul.h. Each operation is written once: inlined with a
 * row of PACKED_FORMATS it is left with the steps of that format. */
#include "model/matmul.h"

#include "model/base/simd_int.h"

#include <float.h>

#define PANEL_VECS (PANEL_ROWS / VEC_LANES)

/* What is held in registers: sums of PAIR_VECS vectors of rows by TOKEN_TILE tokens. */
#if VEC_LANES == 16
#define TOKEN_TILE 12
#define PAIR_VECS  2 /* a vector is the rows of a panel */
#elif VEC_LANES == 8
#define TOKEN_TILE 4
#define PAIR_VECS  2 /* two vectors are a panel: a pair goes in two turns */
#else
#define TOKEN_TILE 4
#define PAIR_VECS  4
#endif

/* How far ahead weights are asked for: farther than memory is away, nearer than a cache is large. */
#define AHEAD_BYTES 6144

/* ---- Activations */

static float largest_magnitude(const float x[PACKED_BLOCK], float *taint) {
    Vec most = vec_zero(), taints = vec_zero();
    for (size_t j = 0; j < PACKED_BLOCK; j += VEC_LANES) {
        Vec v = vec_load(x + j);
        most = vec_max(vec_max(v, vec_mul(v, vec_set1(-1.0f))), most);
        taints = vec_fma(v, vec_zero(), taints); /* NaN where v is not finite */
    }
    *taint = vec_sum(taints);
    return vec_largest(most);
}

/* One token's block: planes as bytes, and the sums of both halves. */
INLINE void split_block(const float x[PACKED_BLOCK], float inverse, int8_t high[PACKED_BLOCK], int8_t low[PACKED_BLOCK],
                        int32_t sums[2]) {
    for (size_t half = 0; half < 2; half++) {
        VecInt sum = vec_int_zero();
        for (size_t j = half * 16; j < half * 16 + 16; j += VEC_LANES) {
            VecInt whole = vec_int_round(vec_mul(vec_load(x + j), vec_set1(inverse)));
            VecInt upper = vec_int_shift_right_signed(vec_int_add(whole, vec_int_set1(128)), 8);
            vec_int_store_bytes(high + j, upper);
            vec_int_store_bytes(low + j, vec_int_sub(whole, vec_int_shift_left(upper, 8)));
            sum = vec_int_add(sum, whole);
        }
        sums[half] = vec_int_sum(sum);
    }
}

static void put_float(int32_t *to, float value) {
    memcpy(to, &value, sizeof value);
}

/* Steps of 4 bytes to words that are `stride` apart. */
INLINE void spread_steps(const int8_t bytes[PACKED_BLOCK], size_t stride, int32_t *out) {
    int32_t words[PACKED_STEPS];
    memcpy(words, bytes, sizeof words);
    for (size_t s = 0; s < PACKED_STEPS; s++)
        out[s * stride] = words[s];
}

INLINE void block_to_planes(const float x[PACKED_BLOCK], size_t stride, int32_t *out) {
    int8_t spread_high[PACKED_BLOCK], spread_low[PACKED_BLOCK];
    int8_t *high = stride == 1 ? (int8_t *)(out + PLANE_HIGH) : spread_high;
    int8_t *low = stride == 1 ? (int8_t *)(out + PLANE_LOW) : spread_low;
    int32_t sums[3];
    float taint, largest = largest_magnitude(x, &taint), scale = largest / 32639.0f; /* 127 * 256 + 127 */
    if (!(scale >= FLT_MIN)) /* too small to have an inverse: zero */
        scale = 0.0f;
    split_block(x, scale > 0 ? 1.0f / scale : 0.0f, high, low, sums + 1);
    sums[0] = sums[1] + sums[2];
    scale += taint;
    if (stride != 1) {
        spread_steps(high, stride, out + PLANE_HIGH * stride);
        spread_steps(low, stride, out + PLANE_LOW * stride);
    }
    put_float(out + PLANE_SCALE * stride, scale);
    for (size_t i = 0; i < 3; i++) {
        out[(PLANE_SUMS + i) * stride] = sums[i];
        put_float(out + (PLANE_OFFSETS + i) * stride, scale * (float)sums[i]);
    }
}

INLINE void token_to_planes(const float *x, size_t n_columns, size_t stride, int32_t *planes) {
    for (size_t b = 0; b < n_columns / PACKED_BLOCK; b++)
        block_to_planes(x + b * PACKED_BLOCK, stride, planes + b * PLANE_INTS * stride);
}

static void to_planes(const float *x, size_t n_tokens, size_t n_columns, size_t stride, int32_t *planes) {
    if (stride == 1) {
        token_to_planes(x, n_columns, 1, planes);
        return;
    }
    if (n_tokens < TOKEN_TILE)
        memset(planes, 0, n_columns / PACKED_BLOCK * PLANE_INTS * TOKEN_TILE * sizeof *planes);
    for (size_t t = 0; t < n_tokens; t++)
        token_to_planes(x + t * n_columns, n_columns, TOKEN_TILE, planes + t);
}

static void to_columns(const float *x, size_t n_tokens, size_t n_columns, float *columns) {
    for (size_t c = 0; c < n_columns; c++)
        for (size_t t = 0; t < TOKEN_TILE; t++)
            columns[c * TOKEN_TILE + t] = t < n_tokens ? x[t * n_columns + c] : 0.0f;
}

/* ---- Packed weights in registers */

INLINE VecInt plane_step(const uint8_t *plane, size_t bits, size_t step, size_t vec) {
    VecInt piece = vec_int_load(plane + step % bits * PIECE_BYTES + vec * sizeof(VecInt));
    if (bits == 8)
        return piece;
    return vec_int_and(vec_int_shift_right(piece, (int)(step / bits * bits)),
                       vec_int_set1(((1 << bits) - 1) * 0x01010101));
}

/* Codes of the four columns of a step, VEC_LANES rows from vector `vec` of the panel on. */
INLINE VecInt step_codes(const PackedFormat *format, const uint8_t *block, size_t step, size_t vec) {
    VecInt codes = plane_step(block, format->low_bits, step, vec);
    if (format->high_bits > 0) {
        VecInt high = plane_step(block + PIECE_BYTES * format->low_bits, format->high_bits, step, vec);
        codes = vec_int_or(codes, vec_int_shift_left(high, format->low_bits));
    }
    return codes;
}

INLINE VecInt dot4(const PackedFormat *format, VecInt sum, VecInt codes, VecInt x) {
    return format->low_bits == 8 ? vec_dot4_wide(sum, codes, x) : vec_dot4(sum, codes, x);
}

/* Scales and minima of run `run` of a stripe, in F32. */
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

INLINE float plane_float(const int32_t *planes, size_t stride, size_t word) {
    float value;
    memcpy(&value, planes + word * stride, sizeof value);
    return value;
}

/* total += scale * s * (sum - bias * sum of x) + minimum * s * (sum of x); `part` 0: the block, 1 and 2: its halves. */
INLINE Vec add_run(const PackedFormat *format, Vec total, VecInt sum, Vec scale, Vec minimum, const int32_t *planes,
                   size_t stride, size_t part) {
    if (format->bias > 0)
        sum = vec_int_sub(sum, vec_int_set1(format->bias * planes[(PLANE_SUMS + part) * stride]));
    scale = vec_mul(scale, vec_set1(plane_float(planes, stride, PLANE_SCALE)));
    total = vec_fma(vec_int_to_float(sum), scale, total);
    if (packed_has_minima(format))
        total = vec_fma(minimum, vec_set1(plane_float(planes, stride, PLANE_OFFSETS + part)), total);
    return total;
}

/* ---- One token */

/* The sums of a run of steps with both planes; even and odd steps apart, since they are exact whatever their order. */
INLINE VecInt dot_run(const PackedFormat *format, const uint8_t *block, size_t vec, const int32_t *planes, size_t first,
                      size_t n_steps) {
    VecInt high[2] = {vec_int_zero(), vec_int_zero()}, low[2] = {vec_int_zero(), vec_int_zero()};
#pragma GCC unroll 8
    for (size_t s = first; s < first + n_steps; s++) {
        VecInt codes = step_codes(format, block, s, vec);
        high[s % 2] = dot4(format, high[s % 2], codes, vec_int_set1(planes[PLANE_HIGH + s]));
        low[s % 2] = dot4(format, low[s % 2], codes, vec_int_set1(planes[PLANE_LOW + s]));
    }
    VecInt upper = vec_int_shift_left(vec_int_add(high[0], high[1]), 8);
    return vec_int_add(upper, vec_int_add(low[0], low[1]));
}

INLINE void ask_ahead(const uint8_t *from, size_t n) {
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(from + AHEAD_BYTES + i);
}

INLINE void matvec_panel(const PackedFormat *format, const uint8_t *stripe, size_t n_blocks, const int32_t *planes,
                         float y[PANEL_ROWS]) {
    size_t n_runs = PACKED_BLOCK / format->run, run_steps = PACKED_STEPS / n_runs;
    size_t stripe_blocks = packed_stripe_blocks(format), block_bytes = packed_block_bytes(format);
    Vec totals[PANEL_VECS];
    for (size_t v = 0; v < PANEL_VECS; v++)
        totals[v] = vec_zero();
    for (size_t first = 0; first < n_blocks; first += stripe_blocks, stripe += packed_stripe_bytes(format)) {
        const uint8_t *block = stripe + packed_scales_bytes(format);
        ask_ahead(stripe, packed_scales_bytes(format));
        for (size_t b = 0; b < stripe_blocks && first + b < n_blocks; b++, block += block_bytes, planes += PLANE_INTS) {
            ask_ahead(block, block_bytes);
            for (size_t run = 0; run < n_runs; run++)
                for (size_t v = 0; v < PANEL_VECS; v++) {
                    Vec scale, minimum;
                    run_scales(format, stripe, b * n_runs + run, v, &scale, &minimum);
                    VecInt sum = dot_run(format, block, v, planes, run * run_steps, run_steps);
                    totals[v] = add_run(format, totals[v], sum, scale, minimum, planes, 1, n_runs == 1 ? 0 : run + 1);
                }
        }
    }
    for (size_t v = 0; v < PANEL_VECS; v++)
        vec_store(y + v * VEC_LANES, totals[v]);
}

INLINE Vec load_numbers(TensorType type, const uint8_t *numbers, size_t index) {
    const uint16_t *halves = (const uint16_t *)(const void *)numbers + index;
    if (type == TYPE_F16)
        return vec_load_half(halves);
    return type == TYPE_BF16 ? vec_load_bf16(halves) : vec_load((const float *)(const void *)numbers + index);
}

/* Two panels at once: a row's sum is one chain of additions, and their latency must overlap. */
INLINE void matvec_pair(TensorType type, const uint8_t *panel, size_t panel_bytes, size_t n_columns, const float *x,
                        float y[2 * PANEL_ROWS]) {
    Vec totals[2 * PANEL_VECS];
    for (size_t v = 0; v < 2 * PANEL_VECS; v++)
        totals[v] = vec_zero();
    for (size_t c = 0; c < n_columns; c++) {
        Vec element = vec_set1(x[c]);
        for (size_t v = 0; v < 2 * PANEL_VECS; v++) {
            const uint8_t *numbers = panel + v / PANEL_VECS * panel_bytes;
            size_t index = c * PANEL_ROWS + v % PANEL_VECS * VEC_LANES;
            totals[v] = vec_fma(load_numbers(type, numbers, index), element, totals[v]);
        }
        const uint8_t *column = panel + c * PANEL_ROWS * (type == TYPE_F32 ? sizeof(float) : sizeof(uint16_t));
        __builtin_prefetch(column + AHEAD_BYTES);
        __builtin_prefetch(column + panel_bytes + AHEAD_BYTES);
    }
    for (size_t v = 0; v < 2 * PANEL_VECS; v++)
        vec_store(y + v * VEC_LANES, totals[v]);
}

/* Rows of panels from `panel` on; the last ones may be fewer. */
static void put_rows(const PackedMatrix *w, size_t panel, const float *rows, size_t n, float *y) {
    size_t first = panel * PANEL_ROWS, rest = w->n_rows > first ? w->n_rows - first : 0;
    memcpy(y + first, rows, (n < rest ? n : rest) * sizeof *y);
}

INLINE void matvec_coded(const PackedFormat *format, const PackedMatrix *w, const int32_t *planes, size_t begin,
                         size_t end, float *y) {
    float rows[PANEL_ROWS];
    for (size_t p = begin; p < end; p++) {
        matvec_panel(format, w->data + p * w->panel_bytes, w->n_columns / PACKED_BLOCK, planes, rows);
        put_rows(w, p, rows, PANEL_ROWS, y);
    }
}

/* The last of an odd number of panels meets the next one in vain: it is there, if only as zeros. */
INLINE void matvec_numbers(TensorType type, const PackedMatrix *w, const float *x, size_t begin, size_t end, float *y) {
    float rows[2 * PANEL_ROWS];
    for (size_t p = begin; p < end; p += 2) {
        size_t first = p + 1 < w->n_panels ? p : p - 1, skipped = (p - first) * PANEL_ROWS;
        matvec_pair(type, w->data + first * w->panel_bytes, w->panel_bytes, w->n_columns, x, rows);
        put_rows(w, p, rows + skipped, p + 1 < end ? 2 * PANEL_ROWS : PANEL_ROWS, y);
    }
}

/* ---- Many tokens */

/* A pair of panels as the products of many tokens read it, in `room`. */
typedef struct Unpacked {
    uint8_t *codes; /* (2, n_blocks, PACKED_STEPS, PIECE_BYTES) */
    float *scales;  /* (2, n_runs, PANEL_ROWS) */
    float *minima;  /* the same */
    size_t n_blocks, n_runs;
} Unpacked;

/* Codes take a quarter of the room; scales and minima of runs of 16 columns or more an eighth of it. */
static Unpacked lay_out(const PackedFormat *format, size_t n_columns, void *room) {
    size_t n_blocks = n_columns / PACKED_BLOCK, n_runs = n_columns / format->run;
    uint8_t *codes = room;
    float *scales = (float *)(void *)(codes + 2 * n_blocks * PACKED_STEPS * PIECE_BYTES);
    return (Unpacked){codes, scales, scales + 2 * n_runs * PANEL_ROWS, n_blocks, n_runs};
}

INLINE void unpack_block(const PackedFormat *format, const uint8_t *block, uint8_t *codes) {
    for (size_t s = 0; s < PACKED_STEPS; s++)
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
                     out->codes + (index * out->n_blocks + b) * PACKED_STEPS * PIECE_BYTES);
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

/* sums += codes . one plane, over some steps. */
INLINE void dot_plane(const PackedFormat *format, size_t n_tokens, const uint8_t *const codes[PAIR_VECS],
                      const int32_t *plane, size_t first, size_t n_steps, VecInt sums[TOKEN_TILE][PAIR_VECS]) {
#pragma GCC unroll 1 /* unrolled, GCC 12 keeps the sums in memory */
    for (size_t s = first; s < first + n_steps; s++) {
        VecInt steps[PAIR_VECS];
        for (size_t v = 0; v < PAIR_VECS; v++)
            steps[v] = vec_int_load(codes[v] + s * PIECE_BYTES);
        for (size_t t = 0; t < n_tokens; t++) {
            VecInt x = vec_int_set1(plane[s * TOKEN_TILE + t]);
            for (size_t v = 0; v < PAIR_VECS; v++)
                sums[t][v] = dot4(format, sums[t][v], steps[v], x);
        }
    }
}

/* A turn over a pair by a tile of tokens. The high plane's sums become the low plane's beginning: shifted by 8 bits.
 * A constant n_tokens keeps them in registers. */
INLINE void tile_coded(const PackedFormat *format, size_t n_tokens, const Unpacked *w, size_t turn,
                       const int32_t *planes, Vec totals[TOKEN_TILE][PAIR_VECS]) {
    size_t n_runs = PACKED_BLOCK / format->run, run_steps = PACKED_STEPS / n_runs;
    const uint8_t *codes[PAIR_VECS];
    for (size_t v = 0; v < PAIR_VECS; v++)
        codes[v] =
            w->codes + panel_of(turn, v) * w->n_blocks * PACKED_STEPS * PIECE_BYTES + vec_of(turn, v) * sizeof(VecInt);
    for (size_t b = 0; b < w->n_blocks; b++, planes += PLANE_INTS * TOKEN_TILE) {
        for (size_t run = 0; run < n_runs; run++) {
            VecInt sums[TOKEN_TILE][PAIR_VECS];
            for (size_t t = 0; t < n_tokens; t++)
                for (size_t v = 0; v < PAIR_VECS; v++)
                    sums[t][v] = vec_int_zero();
            dot_plane(format, n_tokens, codes, planes + PLANE_HIGH * TOKEN_TILE, run * run_steps, run_steps, sums);
            for (size_t t = 0; t < n_tokens; t++)
                for (size_t v = 0; v < PAIR_VECS; v++)
                    sums[t][v] = vec_int_shift_left(sums[t][v], 8);
            dot_plane(format, n_tokens, codes, planes + PLANE_LOW * TOKEN_TILE, run * run_steps, run_steps, sums);
            for (size_t v = 0; v < PAIR_VECS; v++) {
                size_t at =
                    (panel_of(turn, v) * w->n_runs + b * n_runs + run) * PANEL_ROWS + vec_of(turn, v) * VEC_LANES;
                Vec scale = vec_load(w->scales + at);
                Vec minimum = packed_has_minima(format) ? vec_load(w->minima + at) : vec_zero();
                for (size_t t = 0; t < n_tokens; t++)
                    totals[t][v] = add_run(format, totals[t][v], sums[t][v], scale, minimum, planes + t, TOKEN_TILE,
                                           n_runs == 1 ? 0 : run + 1);
            }
        }
        for (size_t v = 0; v < PAIR_VECS; v++)
            codes[v] += PACKED_STEPS * PIECE_BYTES;
    }
}

INLINE void tile_numbers(size_t n_tokens, const float *numbers, size_t n_columns, size_t turn, const float *columns,
                         Vec totals[TOKEN_TILE][PAIR_VECS]) {
    for (size_t c = 0; c < n_columns; c++) {
        Vec w[PAIR_VECS];
        for (size_t v = 0; v < PAIR_VECS; v++)
            w[v] = vec_load(numbers + (panel_of(turn, v) * n_columns + c) * PANEL_ROWS + vec_of(turn, v) * VEC_LANES);
        for (size_t t = 0; t < n_tokens; t++) {
            Vec x = vec_set1(columns[c * TOKEN_TILE + t]);
            for (size_t v = 0; v < PAIR_VECS; v++)
                totals[t][v] = vec_fma(w[v], x, totals[t][v]);
        }
    }
}

/* One turn by one tile, for a constant number of tokens, to y from the tile's first token on. `format` NULL: numbers.
 */
INLINE void turn_by_tile(const PackedFormat *format, size_t n_computed, const PackedMatrix *w, const Unpacked *unpacked,
                         size_t pair, size_t turn, const void *tile, size_t n_tokens, float *y) {
    Vec totals[TOKEN_TILE][PAIR_VECS];
    for (size_t t = 0; t < n_computed; t++)
        for (size_t v = 0; v < PAIR_VECS; v++)
            totals[t][v] = vec_zero();
    if (format != NULL)
        tile_coded(format, n_computed, unpacked, turn, tile, totals);
    else
        tile_numbers(n_computed, (const float *)(const void *)unpacked->codes, w->n_columns, turn, tile, totals);
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

/* A pair that is unpacked by all tokens. The last tile may be computed narrower. */
INLINE void pair_by_tokens(const PackedFormat *format, const PackedMatrix *w, const Unpacked *unpacked, size_t pair,
                           const void *tiles, size_t n_tokens, float *y) {
    size_t tile_words = matmul_tile_words(w->type, w->n_columns, TOKEN_TILE);
    for (size_t t = 0; t < n_tokens; t += TOKEN_TILE) {
        const int32_t *tile = (const int32_t *)tiles + t / TOKEN_TILE * tile_words;
        float *out = y + t * w->n_rows;
        size_t n = n_tokens - t < TOKEN_TILE ? n_tokens - t : TOKEN_TILE;
        for (size_t turn = 0; turn < 2 * PANEL_VECS / PAIR_VECS; turn++) {
            if (n <= TOKEN_TILE / 3)
                turn_by_tile(format, TOKEN_TILE / 3, w, unpacked, pair, turn, tile, n, out);
            else if (n <= TOKEN_TILE * 2 / 3)
                turn_by_tile(format, TOKEN_TILE * 2 / 3, w, unpacked, pair, turn, tile, n, out);
            else
                turn_by_tile(format, TOKEN_TILE, w, unpacked, pair, turn, tile, n, out);
        }
    }
}

INLINE void matmul_coded(const PackedFormat *format, const PackedMatrix *w, const void *tiles, size_t n_tokens,
                         size_t begin, size_t end, void *room, float *y) {
    Unpacked unpacked = lay_out(format, w->n_columns, room);
    for (size_t pair = begin; pair < end; pair++) {
        for (size_t i = 0; i < 2; i++)
            unpack_panel(format, w->data + (2 * pair + i) * w->panel_bytes, i, &unpacked);
        pair_by_tokens(format, w, &unpacked, pair, tiles, n_tokens, y);
    }
}

INLINE void matmul_numbers(TensorType type, const PackedMatrix *w, const void *tiles, size_t n_tokens, size_t begin,
                           size_t end, void *room, float *y) {
    float *numbers = room;
    size_t panel_numbers = w->n_columns * PANEL_ROWS;
    for (size_t pair = begin; pair < end; pair++) {
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < panel_numbers; j += VEC_LANES)
                vec_store(numbers + i * panel_numbers + j,
                          load_numbers(type, w->data + (2 * pair + i) * w->panel_bytes, j));
        pair_by_tokens(NULL, w, &(Unpacked){.codes = room}, pair, tiles, n_tokens, y);
    }
}

/* ---- The table */

#define CODED_TYPES(DO)                                                                                                \
    DO(TYPE_Q4_0)                                                                                                      \
    DO(TYPE_Q4_1)                                                                                                      \
    DO(TYPE_Q5_0)                                                                                                      \
    DO(TYPE_Q5_1)                                                                                                      \
    DO(TYPE_Q8_0) DO(TYPE_Q2_K) DO(TYPE_Q3_K) DO(TYPE_Q4_K) DO(TYPE_Q5_K) DO(TYPE_Q6_K) DO(TYPE_I8_GROUPED)
#define NUMBER_TYPES(DO) DO(TYPE_F32) DO(TYPE_F16) DO(TYPE_BF16)

#define CODED_MATVEC(type)                                                                                             \
    case type:                                                                                                         \
        matvec_coded(&PACKED_FORMATS[type], w, x, begin, end, y);                                                      \
        break;
#define NUMBER_MATVEC(type)                                                                                            \
    case type:                                                                                                         \
        matvec_numbers(type, w, x, begin, end, y);                                                                     \
        break;
#define CODED_MATMUL(type)                                                                                             \
    case type:                                                                                                         \
        matmul_coded(&PACKED_FORMATS[type], w, tiles, n_tokens, begin, end, room, y);                                  \
        break;
#define NUMBER_MATMUL(type)                                                                                            \
    case type:                                                                                                         \
        matmul_numbers(type, w, tiles, n_tokens, begin, end, room, y);                                                 \
        break;

static void matvec(const PackedMatrix *w, const void *x, size_t begin, size_t end, float *y) {
    switch (w->type) {
        CODED_TYPES(CODED_MATVEC)
        NUMBER_TYPES(NUMBER_MATVEC)
    default:
        break;
    }
}

static void matmul(const PackedMatrix *w, const void *tiles, size_t n_tokens, size_t begin, size_t end, void *room,
                   float *y) {
    switch (w->type) {
        CODED_TYPES(CODED_MATMUL)
        NUMBER_TYPES(NUMBER_MATMUL)
    default:
        break;
    }
}

const MatmulKernels SIMD_NAME(matmul_kernels) = {TOKEN_TILE, to_planes, to_columns, matvec, matmul};
