/* The inner loops of attention: blocks of rows (one head of one query each) against keys and values. A constant number
 * of rows lets the compiler keep a block's sums in registers. Whatever the blocks, each score is the sum that
 * score_rows() makes, and each output sums its tokens one by one. To be included by sources of stowkv_simd_library()
 * only. */
#ifndef STOWKV_ROW_KERNELS_H
#define STOWKV_ROW_KERNELS_H

#include "model/base/simd.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))

#define ROW_BLOCK 4

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

/* Keys and values come as FP16, straight from the cache, or as F32, decoded. */
INLINE Vec load_row(const void *row, size_t d, bool half) {
    return half ? vec_load_half((const uint16_t *)row + d) : vec_load((const float *)row + d);
}

INLINE Vec load_row_partial(const void *row, size_t d, size_t n, bool half) {
    return half ? vec_load_half_partial((const uint16_t *)row + d, n) : vec_load_partial((const float *)row + d, n);
}

INLINE const void *row_at(const void *rows, size_t index, bool half) {
    return (const char *)rows + index * (half ? sizeof(uint16_t) : sizeof(float));
}

/* scores[r][t] = q[r] . keys[t] / sqrt(head_dim). A head's dimension need not be a multiple of the lanes. */
INLINE void score_rows(size_t n_rows, const float *q, const void *keys, bool half, size_t n_tokens, size_t head_dim,
                       float *scores, size_t stride) {
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t whole = head_dim / VEC_LANES * VEC_LANES, rest = head_dim - whole;
    for (size_t t = 0; t < n_tokens; t++) {
        const void *key = row_at(keys, t * head_dim, half);
        Vec sums[ROW_BLOCK];
        for (size_t r = 0; r < n_rows; r++)
            sums[r] = vec_zero();
        for (size_t d = 0; d < whole; d += VEC_LANES) {
            Vec k = load_row(key, d, half);
            for (size_t r = 0; r < n_rows; r++)
                sums[r] = vec_fma(vec_load(q + r * head_dim + d), k, sums[r]);
        }
        if (rest > 0) {
            Vec k = load_row_partial(key, whole, rest, half);
            for (size_t r = 0; r < n_rows; r++)
                sums[r] = vec_fma(vec_load_partial(q + r * head_dim + whole, rest), k, sums[r]);
        }
        for (size_t r = 0; r < n_rows; r++)
            scores[r * stride + t] = vec_sum(sums[r]) * scale;
    }
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
    Vec sums[ROW_BLOCK][PANEL_BLOCK], scale = vec_set1(1.0f / sqrtf((float)head_dim));
    sum_lanes(n_rows, q, panels, head_dim, 0, sums);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            vec_store(scores + r * stride + p * VEC_LANES, vec_mul(sums[r][p], scale));
}

/* out[r][d] += sum over t of weights[r][t] * values[t][d] for some columns of lanes from d on. */
INLINE void add_columns(size_t n_rows, const float *weights, size_t stride, const void *values, bool half,
                        size_t n_tokens, size_t head_dim, size_t d, size_t n_columns, float *out) {
    Vec sums[ROW_BLOCK][COLUMN_BLOCK];
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_columns; c++)
            sums[r][c] = vec_load(out + r * head_dim + d + c * VEC_LANES);
    for (size_t t = 0; t < n_tokens; t++) {
        Vec columns[COLUMN_BLOCK];
        for (size_t c = 0; c < n_columns; c++)
            columns[c] = load_row(row_at(values, t * head_dim, half), d + c * VEC_LANES, half);
        for (size_t r = 0; r < n_rows; r++) {
            Vec weight = vec_set1(weights[r * stride + t]);
            for (size_t c = 0; c < n_columns; c++)
                sums[r][c] = vec_fma(weight, columns[c], sums[r][c]);
        }
    }
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_columns; c++)
            vec_store(out + r * head_dim + d + c * VEC_LANES, sums[r][c]);
}

INLINE void add_rows(size_t n_rows, const float *weights, size_t stride, const void *values, bool half, size_t n_tokens,
                     size_t head_dim, float *out) {
    size_t d = 0, rest = head_dim % VEC_LANES, step = COLUMN_BLOCK * VEC_LANES;
    for (; d + step <= head_dim; d += step)
        add_columns(n_rows, weights, stride, values, half, n_tokens, head_dim, d, COLUMN_BLOCK, out);
    for (; d + VEC_LANES <= head_dim; d += VEC_LANES)
        add_columns(n_rows, weights, stride, values, half, n_tokens, head_dim, d, 1, out);
    for (size_t r = 0; r < n_rows && rest > 0; r++) {
        Vec sum = vec_load_partial(out + r * head_dim + d, rest);
        for (size_t t = 0; t < n_tokens; t++)
            sum = vec_fma(vec_set1(weights[r * stride + t]),
                          load_row_partial(row_at(values, t * head_dim, half), d, rest, half), sum);
        vec_store_partial(out + r * head_dim + d, sum, rest);
    }
}

#endif
