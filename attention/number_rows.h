/* Quantizes rows of floats (query heads, or their weights) to 16 bits, for products with codes; see code_products.h. To
 * be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_NUMBER_ROWS_H
#define STOWKV_NUMBER_ROWS_H

#include "attention/code_products.h"
#include "attention/float_kernels.h"
#include "base/simd/codes.h"

#include <float.h>
#include <math.h>

#define FACTOR_VECS   (NUMBERS / VEC_LANES)
#define LEAST_LARGEST 0x1p-100f /* a block whose largest magnitude is smaller has no inverse in F32 */

/* One block of each row: elements [at, at + n), times the factors, quantized with one scale. */
typedef struct NumberJob {
    const float *const *rows;
    size_t at, n, n_sums; /* n_sums: 1, of all n; 2, of each 32 */
    Vec factors[FACTOR_VECS];
    NumberBlock *out; /* of the first row; those of the next are `stride` further */
    size_t stride;
} NumberJob;

typedef Vec Products[ROW_BLOCK][FACTOR_VECS];

INLINE void multiply(size_t n_rows, const NumberJob *job, size_t first, Products products) {
    for (size_t i = 0; i < job->n / VEC_LANES; i++)
        for (size_t r = 0; r < n_rows; r++)
            products[r][i] = vec_mul(vec_load(job->rows[first + r] + job->at + i * VEC_LANES), job->factors[i]);
}

/* The rows' largest magnitudes; not finite where an element is not. */
INLINE void find_largest(size_t n_rows, const NumberJob *job, Products products, float *largest) {
    VecInt most[ROW_BLOCK];
    int32_t bits[ROW_BLOCK];
    for (size_t r = 0; r < n_rows; r++)
        most[r] = vec_magnitudes(products[r], job->n / VEC_LANES);
    for (size_t r = n_rows; r < ROW_BLOCK; r++)
        most[r] = most[0];
    vec_int_store_largest(bits, most[0], most[1], most[2], most[3]);
    memcpy(largest, bits, n_rows * sizeof *bits);
}

/* The magnitude that the integer NUMBER_MOST, 32639, stands for. */
INLINE float scaled_to_most(float largest) {
    return largest > LEAST_LARGEST ? largest : LEAST_LARGEST;
}

INLINE void find_inverses(size_t n_rows, const float *largest, float *inverses) {
    for (size_t r = 0; r < n_rows; r++)
        inverses[r] = NUMBER_MOST / scaled_to_most(largest[r]);
}

INLINE int32_t sum_of(const VecInt *whole, size_t n) {
    VecInt sum = whole[0];
    for (size_t i = 1; i < n / VEC_LANES; i++)
        sum = vec_int_add(sum, whole[i]);
    return vec_int_sum(sum);
}

/* Quantizes; zeros with the scale NaN where an element is not finite. */
INLINE void store_rows(size_t n_rows, const NumberJob *job, size_t first, Products products, const float *largest,
                       const float *inverses) {
    for (size_t r = 0; r < n_rows; r++) {
        NumberBlock *out = job->out + (first + r) * job->stride;
        bool finite = largest[r] <= FLT_MAX;
        VecInt whole[FACTOR_VECS];
        for (size_t i = 0; i < job->n / VEC_LANES; i++)
            whole[i] = vec_int_round(vec_mul(finite ? products[r][i] : vec_zero(), vec_set1(inverses[r])));
        store_numbers(out->words, job->n, whole);
        out->scale = finite ? scaled_to_most(largest[r]) * (1.0f / NUMBER_MOST) : NAN;
        out->sums[0] = sum_of(whole, job->n_sums == 1 ? job->n : KV_WOVEN_BLOCK);
        out->sums[1] = job->n_sums == 2 && job->n > KV_WOVEN_BLOCK
                           ? sum_of(whole + KV_WOVEN_BLOCK / VEC_LANES, KV_WOVEN_BLOCK)
                           : 0;
    }
}

INLINE void make_few(size_t n_rows, const NumberJob *job) {
    float largest[ROW_BLOCK], inverses[ROW_BLOCK];
    Products products;
    multiply(n_rows, job, 0, products);
    find_largest(n_rows, job, products, largest);
    find_inverses(n_rows, largest, inverses);
    store_rows(n_rows, job, 0, products, largest, inverses);
}

INLINE void begin_many(size_t n_rows, const NumberJob *job, size_t first, float *largest) {
    Products products;
    multiply(n_rows, job, first, products);
    find_largest(n_rows, job, products, largest + first);
}

INLINE void end_many(size_t n_rows, const NumberJob *job, size_t first, const float *largest, const float *inverses) {
    Products products;
    multiply(n_rows, job, first, products);
    store_rows(n_rows, job, first, products, largest + first, inverses + first);
}

/* A row's steps wait for one another, rows do not: so all rows take a step before any takes the next. Products are made
 * twice, which costs less than the waiting. */
INLINE void make_many(size_t n_rows, const NumberJob *job) {
    float largest[SCORE_ROWS] = {0}, inverses[SCORE_ROWS];
    for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
        WITH_ROWS(row_block(n_rows - r), begin_many, job, r, largest);
    find_inverses(n_rows, largest, inverses);
    for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
        WITH_ROWS(row_block(n_rows - r), end_many, job, r, largest, inverses);
}

static inline size_t blocks_of(size_t n) {
    return (n + NUMBERS - 1) / NUMBERS;
}

INLINE void make_block(const float *const *rows, size_t n_rows, const uint16_t *factors, size_t at, size_t n,
                       size_t n_sums, NumberBlock *out, size_t stride) {
    NumberJob job = {.rows = rows, .at = at, .n = n, .n_sums = n_sums, .out = out, .stride = stride};
    for (size_t i = 0; i < n / VEC_LANES; i++)
        job.factors[i] = factors == NULL ? vec_set1(1.0f) : vec_load_half(factors + at + i * VEC_LANES);
    if (n_rows <= ROW_BLOCK)
        WITH_ROWS(n_rows, make_few, &job);
    else
        make_many(n_rows, &job);
}

/* Rows of n elements, SCORE_ROWS rows at most, times factors in FP16 or NULL. */
INLINE void make_rows(const float *const *rows, size_t n_rows, const uint16_t *factors, size_t n, size_t n_sums,
                      NumberBlock *out, size_t stride) {
    size_t at = 0;
    for (; at + NUMBERS <= n; at += NUMBERS, out++)
        make_block(rows, n_rows, factors, at, NUMBERS, n_sums, out, stride);
    if (at < n)
        make_block(rows, n_rows, factors, at, KV_WOVEN_BLOCK, n_sums, out, stride);
}

static inline float dot(const float *a, const uint16_t *b, size_t n) {
    Vec sum = vec_zero();
    for (size_t i = 0; i < n; i += VEC_LANES)
        sum = vec_fma(vec_load(a + i), vec_load_half(b + i), sum);
    return vec_sum(sum);
}

#endif
