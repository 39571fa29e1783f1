/* The inner loops of attention in F32: up to HEAD_BLOCK query heads against keys and values. A constant number of query
 * heads lets the compiler keep their sums in registers. Whatever that number, each score is the sum that score_keys()
 * makes, and each output adds its tokens one by one. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_FLOAT_KERNELS_H
#define STOWKV_FLOAT_KERNELS_H

#include "attention/stored_tokens.h"

#define HEAD_BLOCK 4 /* query heads */

/* How many of the query heads that are left go through a kernel next. */
static inline size_t head_block(size_t n_left) {
    return n_left < HEAD_BLOCK ? n_left : HEAD_BLOCK;
}

/* Calls a kernel with a constant number of query heads, 1 to HEAD_BLOCK. */
#define WITH_HEADS(n_heads, kernel, ...)                                                                               \
    do {                                                                                                               \
        switch (n_heads) {                                                                                             \
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
            kernel(HEAD_BLOCK, __VA_ARGS__);                                                                           \
            break;                                                                                                     \
        }                                                                                                              \
    } while (0)

#define PANEL_BLOCK 2
#if VEC_LANES == 16
#define COLUMN_BLOCK 4 /* 16 sums, 4 columns, a weight: fits 32 registers */
#else
#define COLUMN_BLOCK 2 /* 8 sums, 2 columns, a weight: fits 16 registers */
#endif

/* Prefetch distance in bytes: hardware prefetches within a page only, too late for a core that has little to do for
 * each byte. */
#define PREFETCH_BYTES 8192

INLINE void prefetch_tokens(StoredForm form, const StoredTokens *stored, size_t t, size_t n) {
    const uint8_t *from = stored->tokens + t * stored->token_bytes + PREFETCH_BYTES;
    for (size_t i = 0; i < n * stored->token_bytes && form != STORED_FLOAT; i += 64)
        __builtin_prefetch(from + i);
}

/* scores[h][t] = q[h] . key t */
typedef struct ScoreJob {
    const float *q; /* (query heads, head_dim) */
    StoredTokens keys;
    size_t n_tokens, head_dim;
    float *scores; /* (query heads, n_tokens), `stride` apart */
    size_t stride;
} ScoreJob;

#define SCORE_TOKENS 4 /* tokens whose sums across vectors are taken at once */

INLINE void score_vector(StoredForm form, size_t n_heads, size_t n_tokens, const ScoreJob *job, size_t t, size_t d,
                         size_t i, Vec sums[HEAD_BLOCK][SCORE_TOKENS]) {
    for (size_t j = 0; j < n_tokens; j++) {
        Vec k = load_stored(form, &job->keys, t + j, d, i);
        for (size_t h = 0; h < n_heads; h++)
            sums[h][j] = vec_fma(vec_load(job->q + h * job->head_dim + d + i), k, sums[h][j]);
    }
}

/* The scores of 1 token or SCORE_TOKENS. */
INLINE void score_tokens(StoredForm form, size_t n_heads, size_t n_tokens, const ScoreJob *job, size_t t) {
    Vec sums[HEAD_BLOCK][SCORE_TOKENS];
    size_t d = 0, head_dim = job->head_dim, rest = head_dim % VEC_LANES;
    prefetch_tokens(form, &job->keys, t, n_tokens);
    for (size_t h = 0; h < n_heads; h++)
        for (size_t j = 0; j < n_tokens; j++)
            sums[h][j] = vec_zero();
    for (; d + STORED_STEP <= head_dim; d += STORED_STEP)
#pragma GCC unroll 8
        for (size_t i = 0; i < STORED_STEP; i += VEC_LANES)
            score_vector(form, n_heads, n_tokens, job, t, d, i, sums);
    for (size_t i = 0; d + i + VEC_LANES <= head_dim; i += VEC_LANES)
        score_vector(form, n_heads, n_tokens, job, t, d, i, sums);
    d = head_dim - rest;
    for (size_t j = 0; j < n_tokens && rest > 0; j++) {
        Vec k = load_stored_partial(form, &job->keys, t + j, d, rest);
        for (size_t h = 0; h < n_heads; h++)
            sums[h][j] = vec_fma(vec_load_partial(job->q + h * head_dim + d, rest), k, sums[h][j]);
    }
    for (size_t h = 0; h < n_heads; h++) {
        float *scores = job->scores + h * job->stride + t;
        if (n_tokens == SCORE_TOKENS)
            vec_store_sums(scores, sums[h][0], sums[h][1], sums[h][2], sums[h][3]);
        else
            *scores = vec_sum(sums[h][0]);
    }
}

/* head_dim need not be a multiple of VEC_LANES where tokens are not encoded. That of most small models, 64, is a
 * constant here, so that the compiler leaves no loop within a token. */
INLINE void score_keys(size_t n_heads, StoredForm form, const ScoreJob *job) {
    ScoreJob small = *job;
    size_t t = 0;
    small.head_dim = 64;
    for (; job->head_dim == 64 && t + SCORE_TOKENS <= job->n_tokens; t += SCORE_TOKENS)
        score_tokens(form, n_heads, SCORE_TOKENS, &small, t);
    for (; t + SCORE_TOKENS <= job->n_tokens; t += SCORE_TOKENS)
        score_tokens(form, n_heads, SCORE_TOKENS, job, t);
    for (; t < job->n_tokens; t++)
        score_tokens(form, n_heads, 1, job, t);
}

/* Scores from panels (n_panels, head_dim, VEC_LANES), which have a key in each lane, so that no sum goes across a
 * vector. What score_keys() sums in lane `lane`, elements lane, lane + VEC_LANES, … of the head, is a vector of sums
 * here. */
INLINE void sum_lane(size_t n_heads, const float *q, const float *panels, size_t head_dim, size_t lane,
                     Vec sums[HEAD_BLOCK][PANEL_BLOCK]) {
    for (size_t h = 0; h < n_heads; h++)
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            sums[h][p] = vec_zero();
    for (size_t d = lane; d < head_dim; d += VEC_LANES) {
        Vec keys[PANEL_BLOCK];
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            keys[p] = vec_load(panels + (p * head_dim + d) * VEC_LANES);
        for (size_t h = 0; h < n_heads; h++) {
            Vec element = vec_set1(q[h * head_dim + d]);
            for (size_t p = 0; p < PANEL_BLOCK; p++)
                sums[h][p] = vec_fma(element, keys[p], sums[h][p]);
        }
    }
}

/* Adds those sums in the order in which vec_sum() adds lanes: `half` from `lane` on, and from `lane + step` on. */
#define DEFINE_SUM(name, half, step)                                                                                   \
    INLINE void name(size_t n_heads, const float *q, const float *panels, size_t head_dim, size_t lane,                \
                     Vec sums[HEAD_BLOCK][PANEL_BLOCK]) {                                                              \
        Vec others[HEAD_BLOCK][PANEL_BLOCK];                                                                           \
        half(n_heads, q, panels, head_dim, lane, sums);                                                                \
        half(n_heads, q, panels, head_dim, lane + step, others);                                                       \
        for (size_t h = 0; h < n_heads; h++)                                                                           \
            for (size_t p = 0; p < PANEL_BLOCK; p++)                                                                   \
                sums[h][p] = vec_add(sums[h][p], others[h][p]);                                                        \
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

/* The scores, to the bit those of score_keys(), of the tokens of PANEL_BLOCK panels. */
INLINE void score_panels(size_t n_heads, const float *q, const float *panels, size_t head_dim, float *scores,
                         size_t stride) {
    Vec sums[HEAD_BLOCK][PANEL_BLOCK];
    sum_lanes(n_heads, q, panels, head_dim, 0, sums);
    for (size_t h = 0; h < n_heads; h++)
        for (size_t p = 0; p < PANEL_BLOCK; p++)
            vec_store(scores + h * stride + p * VEC_LANES, sums[h][p]);
}

/* out[h] += sum over t of weights[h][t] * value t */
typedef struct AddJob {
    const float *weights; /* (query heads, n_tokens), `weight_stride` apart */
    size_t weight_stride;
    StoredTokens values;
    size_t n_tokens, head_dim;
    float *out; /* (query heads, head_dim), `out_stride` apart */
    size_t out_stride;
} AddJob;

/* Adds to n_columns vectors of elements, from element d + i on. */
INLINE void add_columns(StoredForm form, size_t n_heads, const AddJob *job, size_t d, size_t i, size_t n_columns) {
    Vec sums[HEAD_BLOCK][COLUMN_BLOCK];
    float *out = job->out + d + i;
    for (size_t h = 0; h < n_heads; h++)
        for (size_t c = 0; c < n_columns; c++)
            sums[h][c] = vec_load(out + h * job->out_stride + c * VEC_LANES);
    for (size_t t = 0; t < job->n_tokens; t++) {
        Vec columns[COLUMN_BLOCK];
        if (d == 0 && i == 0)
            prefetch_tokens(form, &job->values, t, 1);
        for (size_t c = 0; c < n_columns; c++)
            columns[c] = load_stored(form, &job->values, t, d, i + c * VEC_LANES);
        for (size_t h = 0; h < n_heads; h++) {
            Vec weight = vec_set1(job->weights[h * job->weight_stride + t]);
            for (size_t c = 0; c < n_columns; c++)
                sums[h][c] = vec_fma(weight, columns[c], sums[h][c]);
        }
    }
    for (size_t h = 0; h < n_heads; h++)
        for (size_t c = 0; c < n_columns; c++)
            vec_store(out + h * job->out_stride + c * VEC_LANES, sums[h][c]);
}

INLINE void add_values(size_t n_heads, StoredForm form, const AddJob *job) {
    size_t d = 0, head_dim = job->head_dim, rest = head_dim % VEC_LANES;
    for (; d + STORED_STEP <= head_dim; d += STORED_STEP)
#pragma GCC unroll 8
        for (size_t i = 0; i < STORED_STEP; i += COLUMN_BLOCK * VEC_LANES)
            add_columns(form, n_heads, job, d, i, COLUMN_BLOCK);
    for (size_t i = 0; d + i + VEC_LANES <= head_dim; i += VEC_LANES)
        add_columns(form, n_heads, job, d, i, 1);
    d = head_dim - rest;
    for (size_t h = 0; h < n_heads && rest > 0; h++) {
        float *out = job->out + h * job->out_stride + d;
        Vec sum = vec_load_partial(out, rest);
        for (size_t t = 0; t < job->n_tokens; t++)
            sum = vec_fma(vec_set1(job->weights[h * job->weight_stride + t]),
                          load_stored_partial(form, &job->values, t, d, rest), sum);
        vec_store_partial(out, sum, rest);
    }
}

#endif
