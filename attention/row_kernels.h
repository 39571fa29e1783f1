/* The inner loops of attention: blocks of rows (one head of one query each) against keys and values. A constant number
 * of rows lets the compiler keep a block's sums in registers. Whatever the blocks, each score is the sum that
 * score_rows() makes, and each output sums its tokens one by one. To be included by sources of stowkv_simd_library()
 * only. */
#ifndef STOWKV_ROW_KERNELS_H
#define STOWKV_ROW_KERNELS_H

#include "attention/stored_rows.h"

#define ROW_BLOCK 4

/* Rows go through the kernels in blocks. */
static inline size_t row_block(size_t n_rows) {
    return n_rows < ROW_BLOCK ? n_rows : ROW_BLOCK;
}

/* Calls a kernel with a constant number of rows, 1 to ROW_BLOCK. */
#define WITH_ROWS(n_rows, kernel, ...)                                                                                 \
    do {                                                                                                               \
        switch (n_rows) {                                                                                              \
        case 1:                                                                                                        \
            kernel(1, __VA_ARGS__);                                                                                    \
            break;                                                                                                     \
        case 2:                                                                                                        \
            kernel(2, __VA_ARGS__);                                                                                    \
            break;                                                                                                     \
        case 3:                                                                                                        \
            kernel(3, __VA_ARGS__);                                                                                    \
            break;                                                                                                     \
        default:                                                                                                       \
            kernel(ROW_BLOCK, __VA_ARGS__);                                                                            \
            break;                                                                                                     \
        }                                                                                                              \
    } while (0)

#define PANEL_BLOCK 2
#if VEC_LANES == 16
#define COLUMN_BLOCK 4 /* 16 sums, 4 columns, a weight: fits 32 registers */
#else
#define COLUMN_BLOCK 2 /* 8 sums, 2 columns, a weight: fits 16 registers */
#endif

/* Rows are asked for this far ahead: hardware fetches ahead only as far as a page goes, too late for a core that has
 * little to do for each byte. */
#define PREFETCH_BYTES 8192

INLINE void prefetch_rows(RowForm form, const StoredRows *rows, size_t t, size_t n) {
    const uint8_t *from = rows->rows + t * rows->row_bytes + PREFETCH_BYTES;
    for (size_t i = 0; i < n * rows->row_bytes && form != ROW_FLOAT; i += 64)
        __builtin_prefetch(from + i);
}

#define SCORE_TOKENS 4 /* whose sums across vectors are taken at once */

INLINE void score_vector(RowForm form, size_t n_rows, size_t n_tokens, const float *q, const StoredRows *keys, size_t t,
                         size_t d, size_t i, size_t head_dim, Vec sums[ROW_BLOCK][SCORE_TOKENS]) {
    for (size_t j = 0; j < n_tokens; j++) {
        Vec k = row_load(form, keys, t + j, d, i);
        for (size_t r = 0; r < n_rows; r++)
            sums[r][j] = vec_fma(vec_load(q + r * head_dim + d + i), k, sums[r][j]);
    }
}

/* scores[r][t] = q[r] . key t, for 1 token or SCORE_TOKENS. */
INLINE void score_tokens(RowForm form, size_t n_rows, size_t n_tokens, const float *q, const StoredRows *keys, size_t t,
                         size_t head_dim, float *scores, size_t stride) {
    Vec sums[ROW_BLOCK][SCORE_TOKENS];
    prefetch_rows(form, keys, t, n_tokens);
    size_t d = 0, rest = head_dim % VEC_LANES;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < n_tokens; j++)
            sums[r][j] = vec_zero();
    for (; d + ROW_STEP <= head_dim; d += ROW_STEP)
#pragma GCC unroll 8
        for (size_t i = 0; i < ROW_STEP; i += VEC_LANES)
            score_vector(form, n_rows, n_tokens, q, keys, t, d, i, head_dim, sums);
    for (size_t i = 0; d + i + VEC_LANES <= head_dim; i += VEC_LANES)
        score_vector(form, n_rows, n_tokens, q, keys, t, d, i, head_dim, sums);
    d = head_dim - rest;
    for (size_t j = 0; j < n_tokens && rest > 0; j++) {
        Vec k = row_load_partial(form, keys, t + j, d, rest);
        for (size_t r = 0; r < n_rows; r++)
            sums[r][j] = vec_fma(vec_load_partial(q + r * head_dim + d, rest), k, sums[r][j]);
    }
    for (size_t r = 0; r < n_rows; r++) {
        if (n_tokens == SCORE_TOKENS)
            vec_store_sums(scores + r * stride + t, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        else
            scores[r * stride + t] = vec_sum(sums[r][0]);
    }
}

/* The products of all tokens. A head's dimension need not be a multiple of the lanes where rows are not encoded; that
 * of most small models is known to the compiler, which leaves no loop within a token. */
INLINE void score_rows(size_t n_rows, RowForm form, const float *q, const StoredRows *keys, size_t n_tokens,
                       size_t head_dim, float *scores, size_t stride) {
    size_t t = 0;
    for (; head_dim == 64 && t + SCORE_TOKENS <= n_tokens; t += SCORE_TOKENS)
        score_tokens(form, n_rows, SCORE_TOKENS, q, keys, t, 64, scores, stride);
    for (; t + SCORE_TOKENS <= n_tokens; t += SCORE_TOKENS)
        score_tokens(form, n_rows, SCORE_TOKENS, q, keys, t, head_dim, scores, stride);
    for (; t < n_tokens; t++)
        score_tokens(form, n_rows, 1, q, keys, t, head_dim, scores, stride);
}

/* Keys that stand in lanes: panels (n_panels, head_dim, VEC_LANES). No sum goes across a vector then: what is one lane
 * of a sum in score_rows() is a vector here, over elements `lane`, lane + VEC_LANES, … of the head. */
INLINE void sum_lane(size_t n_rows, const float *q, const float *panels, size_t head_dim, size_t lane,
                     Vec sums[ROW_BLOCK][PANEL_BLOCK]) {
    for (size_t r = 0; r < n_rows; r++)
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            sums[r][p] = vec_zero();
    for (size_t d = lane; d < head_dim; d += VEC_LANES) {
        Vec keys[PANEL_BLOCK];
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            keys[p] = vec_load(panels + (p * head_dim + d) * VEC_LANES);
        for (size_t r = 0; r < n_rows; r++) {
            Vec element = vec_set1(q[r * head_dim + d]);
            for (size_t p = 0; p < PANEL_BLOCK; p++)
                sums[r][p] = vec_fma(element, keys[p], sums[r][p]);
        }
    }
}

/* As vec_sum() adds lanes: the two halves of those `step` apart. */
#define DEFINE_SUM(name, half, step)                                                                                   \
    INLINE void name(size_t n_rows, const float *q, const float *panels, size_t head_dim, size_t lane,                 \
                     Vec sums[ROW_BLOCK][PANEL_BLOCK]) {                                                               \
        Vec others[ROW_BLOCK][PANEL_BLOCK];                                                                            \
        half(n_rows, q, panels, head_dim, lane, sums);                                                                 \
        half(n_rows, q, panels, head_dim, lane + step, others);                                                        \
        for (size_t r = 0; r < n_rows; r++)                                                                            \
            for (size_t p = 0; p < PANEL_BLOCK; p++)                                                                   \
                sums[r][p] = vec_add(sums[r][p], others[r][p]);                                                        \
    }

#if VEC_LANES == 16
DEFINE_SUM(sum_2_lanes, sum_lane, 8)
DEFINE_SUM(sum_4_lanes, sum_2_lanes, 4)
DEFINE_SUM(sum_8_lanes, sum_4_lanes, 2)
DEFINE_SUM(sum_lanes, sum_8_lanes, 1)
#elif VEC_LANES == 8
DEFINE_SUM(sum_2_lanes, sum_lane, 4)
DEFINE_SUM(sum_4_lanes, sum_2_lanes, 2)
DEFINE_SUM(sum_lanes, sum_4_lanes, 1)
#else
DEFINE_SUM(sum_2_lanes, sum_lane, 2)
DEFINE_SUM(sum_lanes, sum_2_lanes, 1)
#endif

/* The scores of score_rows() with the tokens of PANEL_BLOCK panels. */
INLINE void score_panels(size_t n_rows, const float *q, const float *panels, size_t head_dim, float *scores,
                         size_t stride) {
    Vec sums[ROW_BLOCK][PANEL_BLOCK];
    sum_lanes(n_rows, q, panels, head_dim, 0, sums);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            vec_store(scores + r * stride + p * VEC_LANES, sums[r][p]);
}

/* out[r][d] += sum over t of weights[r][t] * value t, for some columns of lanes from d + i on. */
INLINE void add_columns(RowForm form, size_t n_rows, const float *weights, size_t stride, const StoredRows *values,
                        size_t n_tokens, size_t d, size_t i, size_t n_columns, float *out, size_t out_stride) {
    Vec sums[ROW_BLOCK][COLUMN_BLOCK];
    out += d + i;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_columns; c++)
            sums[r][c] = vec_load(out + r * out_stride + c * VEC_LANES);
    for (size_t t = 0; t < n_tokens; t++) {
        Vec columns[COLUMN_BLOCK];
        if (i == 0)
            prefetch_rows(form, values, t, 1);
        for (size_t c = 0; c < n_columns; c++)
            columns[c] = row_load(form, values, t, d, i + c * VEC_LANES);
        for (size_t r = 0; r < n_rows; r++) {
            Vec weight = vec_set1(weights[r * stride + t]);
            for (size_t c = 0; c < n_columns; c++)
                sums[r][c] = vec_fma(weight, columns[c], sums[r][c]);
        }
    }
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_columns; c++)
            vec_store(out + r * out_stride + c * VEC_LANES, sums[r][c]);
}

INLINE void add_rows(size_t n_rows, RowForm form, const float *weights, size_t stride, const StoredRows *values,
                     size_t n_tokens, size_t head_dim, float *out, size_t out_stride) {
    size_t d = 0, rest = head_dim % VEC_LANES;
    for (; d + ROW_STEP <= head_dim; d += ROW_STEP)
#pragma GCC unroll 8
        for (size_t i = 0; i < ROW_STEP; i += COLUMN_BLOCK * VEC_LANES)
            add_columns(form, n_rows, weights, stride, values, n_tokens, d, i, COLUMN_BLOCK, out, out_stride);
    for (size_t i = 0; d + i + VEC_LANES <= head_dim; i += VEC_LANES)
        add_columns(form, n_rows, weights, stride, values, n_tokens, d, i, 1, out, out_stride);
    d = head_dim - rest;
    for (size_t r = 0; r < n_rows && rest > 0; r++) {
        Vec sum = vec_load_partial(out + r * out_stride + d, rest);
        for (size_t t = 0; t < n_tokens; t++)
            sum = vec_fma(vec_set1(weights[r * stride + t]), row_load_partial(form, values, t, d, rest), sum);
        vec_store_partial(out + r * out_stride + d, sum, rest);
    }
}

#endif
