/* Rows of floats as 16-bit numbers, for products with codes; see code_products.h. To be included by sources of
 * stowkv_simd_library() only. */
#ifndef STOWKV_NUMBER_ROWS_H
#define STOWKV_NUMBER_ROWS_H

#include "attention/code_products.h"
#include "model/base/simd_codes.h"

#include <float.h>
#include <math.h>

#if VEC_LANES == 8
#define CODE_ROWS 2 /* rows whose products are made at once: 8 sums, 4 vectors of codes: fits 16 registers */
#else
#define CODE_ROWS 4 /* 16 sums: fits 32 registers */
#endif

#define MOST 32639.0f /* 127 * 256 + 127: what two planes hold */

INLINE int32_t sum_of(const VecInt *whole, size_t n) {
    VecInt sum = whole[0];
    for (size_t i = 1; i < n / VEC_LANES; i++)
        sum = vec_int_add(sum, whole[i]);
    return vec_int_sum(sum);
}

/* Of n numbers of each row; not finite where a number is not. */
INLINE void largest_magnitudes(size_t n_rows, Vec (*v)[NUMBERS / VEC_LANES], size_t n, float *largest) {
    VecInt most[4];
    int32_t bits[4];
    for (size_t r = 0; r < n_rows; r++)
        most[r] = vec_magnitudes(v[r], n / VEC_LANES);
    for (size_t r = n_rows; r < 4; r++)
        most[r] = most[0];
    vec_int_store_largest(bits, most[0], most[1], most[2], most[3]);
    memcpy(largest, bits, n_rows * sizeof *bits);
}

/* n numbers, from `at` on, of some rows times factors, as whole numbers of one scale to a row. */
INLINE void make_numbers(size_t n_rows, const float *const *rows, size_t at, const uint16_t *factors, size_t n,
                         size_t n_sums, NumberBlock *out, size_t stride) {
    Vec v[CODE_ROWS][NUMBERS / VEC_LANES];
    float largest[CODE_ROWS];
    for (size_t i = 0; i < n / VEC_LANES; i++) {
        Vec factor = factors == NULL ? vec_set1(1.0f) : vec_load_half(factors + at + i * VEC_LANES);
        for (size_t r = 0; r < n_rows; r++)
            v[r][i] = vec_mul(vec_load(rows[r] + at + i * VEC_LANES), factor);
    }
    largest_magnitudes(n_rows, v, n, largest);
    for (size_t r = 0; r < n_rows; r++, out += stride) {
        VecInt whole[NUMBERS / VEC_LANES];
        bool finite = largest[r] <= FLT_MAX;
        float inverse = finite && largest[r] >= 0x1p-100f ? MOST / largest[r] : 0.0f; /* too small to have one: zero */
        for (size_t i = 0; i < n / VEC_LANES; i++)
            whole[i] = vec_int_round(vec_mul(finite ? v[r][i] : vec_zero(), vec_set1(inverse)));
        store_numbers(out->words, n, whole);
        out->scale = finite ? largest[r] * (1.0f / MOST) : NAN;
        out->sums[0] = n_sums > 0 ? sum_of(whole, n_sums == 1 ? n : 32) : 0;
        out->sums[1] = n_sums == 2 && n > 32 ? sum_of(whole + 32 / VEC_LANES, 32) : 0;
    }
}

static inline size_t blocks_of(size_t n) {
    return (n + NUMBERS - 1) / NUMBERS;
}

/* Some rows of n numbers, times factors in FP16 or NULL. n_sums: 2, of both halves of a block; 1, of all; 0, none. */
INLINE void make_rows(size_t n_rows, const float *const *rows, const uint16_t *factors, size_t n, size_t n_sums,
                      NumberBlock *out, size_t stride) {
    for (size_t i = 0; i < n; i += NUMBERS, out++)
        if (n - i >= NUMBERS)
            make_numbers(n_rows, rows, i, factors, NUMBERS, n_sums, out, stride);
        else
            make_numbers(n_rows, rows, i, factors, KV_WOVEN_BLOCK, n_sums, out, stride);
}

static inline float dot(const float *a, const uint16_t *b, size_t n) {
    Vec sum = vec_zero();
    for (size_t i = 0; i < n; i += VEC_LANES)
        sum = vec_fma(vec_load(a + i), vec_load_half(b + i), sum);
    return vec_sum(sum);
}

#endif
