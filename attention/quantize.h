/* Quantizes heads of floats (query heads, or their weights) to 16 bits, for products with codes; see code_products.h.
 * To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_QUANTIZE_H
#define STOWKV_QUANTIZE_H

#include "attention/code_products.h"
#include "attention/float_kernels.h"
#include "base/simd/codes.h"

#include <float.h>
#include <math.h>

#define FACTOR_VECS   (QUANTIZED_BLOCK / VEC_LANES)
#define LEAST_LARGEST 0x1p-100f /* smaller magnitudes count as this one: their inverse may overflow F32 */

/* One block of each head: elements [at, at + n), times the factors, quantized with one scale. */
typedef struct QuantizeJob {
    const float *const *heads;
    size_t at, n, n_sums; /* n_sums: 1, of all n; 2, of each 32 */
    Vec factors[FACTOR_VECS];
    QuantizedBlock *out; /* of the first head; heads are `stride` blocks apart */
    size_t stride;
} QuantizeJob;

typedef Vec Products[HEAD_BLOCK][FACTOR_VECS];

INLINE void multiply(size_t n_heads, const QuantizeJob *job, size_t first, Products products) {
    for (size_t i = 0; i < job->n / VEC_LANES; i++)
        for (size_t r = 0; r < n_heads; r++)
            products[r][i] = vec_mul(vec_load(job->heads[first + r] + job->at + i * VEC_LANES), job->factors[i]);
}

/* The heads' largest magnitudes; not finite where an element is not. */
INLINE void find_largest(size_t n_heads, const QuantizeJob *job, Products products, float *largest) {
    VecInt most[HEAD_BLOCK];
    int32_t bits[HEAD_BLOCK];
    for (size_t r = 0; r < n_heads; r++)
        most[r] = vec_magnitudes(products[r], job->n / VEC_LANES);
    for (size_t r = n_heads; r < HEAD_BLOCK; r++)
        most[r] = most[0];
    vec_int_store_largest(bits, most[0], most[1], most[2], most[3]);
    memcpy(largest, bits, n_heads * sizeof *bits);
}

/* The magnitude that the integer QUANTIZED_MAX, 32639, stands for. */
INLINE float magnitude_of_max(float largest) {
    return largest > LEAST_LARGEST ? largest : LEAST_LARGEST;
}

INLINE void find_inverses(size_t n_heads, const float *largest, float *inverses) {
    for (size_t r = 0; r < n_heads; r++)
        inverses[r] = QUANTIZED_MAX / magnitude_of_max(largest[r]);
}

INLINE int32_t sum_of(const VecInt *whole, size_t n) {
    VecInt sum = whole[0];
    for (size_t i = 1; i < n / VEC_LANES; i++)
        sum = vec_int_add(sum, whole[i]);
    return vec_int_sum(sum);
}

/* Quantizes; zeros with the scale NaN where an element is not finite. */
INLINE void store_heads(size_t n_heads, const QuantizeJob *job, size_t first, Products products, const float *largest,
                        const float *inverses) {
    for (size_t r = 0; r < n_heads; r++) {
        QuantizedBlock *out = job->out + (first + r) * job->stride;
        bool finite = largest[r] <= FLT_MAX;
        VecInt whole[FACTOR_VECS];
        for (size_t i = 0; i < job->n / VEC_LANES; i++)
            whole[i] = vec_int_round(vec_mul(finite ? products[r][i] : vec_zero(), vec_set1(inverses[r])));
        store_quantized(out->words, job->n, whole);
        out->scale = finite ? magnitude_of_max(largest[r]) * (1.0f / QUANTIZED_MAX) : NAN;
        out->sums[0] = sum_of(whole, job->n_sums == 1 ? job->n : KV_WOVEN_BLOCK);
        out->sums[1] = job->n_sums == 2 && job->n > KV_WOVEN_BLOCK
                           ? sum_of(whole + KV_WOVEN_BLOCK / VEC_LANES, KV_WOVEN_BLOCK)
                           : 0;
    }
}

INLINE void quantize_few(size_t n_heads, const QuantizeJob *job) {
    float largest[HEAD_BLOCK], inverses[HEAD_BLOCK];
    Products products;
    multiply(n_heads, job, 0, products);
    find_largest(n_heads, job, products, largest);
    find_inverses(n_heads, largest, inverses);
    store_heads(n_heads, job, 0, products, largest, inverses);
}

INLINE void begin_heads(size_t n_heads, const QuantizeJob *job, size_t first, float *largest) {
    Products products;
    multiply(n_heads, job, first, products);
    find_largest(n_heads, job, products, largest + first);
}

INLINE void end_heads(size_t n_heads, const QuantizeJob *job, size_t first, const float *largest,
                      const float *inverses) {
    Products products;
    multiply(n_heads, job, first, products);
    store_heads(n_heads, job, first, products, largest + first, inverses + first);
}

/* The steps of one head wait for one another: so all heads take a step before any takes the next. Products are made
 * twice, which costs less than the waiting. */
INLINE void quantize_many(size_t n_heads, const QuantizeJob *job) {
    float largest[SCORE_HEADS] = {0}, inverses[SCORE_HEADS];
    for (size_t r = 0; r < n_heads; r += HEAD_BLOCK)
        WITH_HEADS(head_block(n_heads - r), begin_heads, job, r, largest);
    find_inverses(n_heads, largest, inverses);
    for (size_t r = 0; r < n_heads; r += HEAD_BLOCK)
        WITH_HEADS(head_block(n_heads - r), end_heads, job, r, largest, inverses);
}

static inline size_t blocks_of(size_t n) {
    return (n + QUANTIZED_BLOCK - 1) / QUANTIZED_BLOCK;
}

INLINE void quantize_block(const float *const *heads, size_t n_heads, const uint16_t *factors, size_t at, size_t n,
                           size_t n_sums, QuantizedBlock *out, size_t stride) {
    QuantizeJob job = {.heads = heads, .at = at, .n = n, .n_sums = n_sums, .out = out, .stride = stride};
    for (size_t i = 0; i < n / VEC_LANES; i++)
        job.factors[i] = factors == NULL ? vec_set1(1.0f) : vec_load_half(factors + at + i * VEC_LANES);
    if (n_heads <= HEAD_BLOCK)
        WITH_HEADS(n_heads, quantize_few, &job);
    else
        quantize_many(n_heads, &job);
}

/* n elements of each of up to SCORE_HEADS heads, times factors, (n) in FP16 or NULL for 1, to blocks of 64. `stride`:
 * in blocks, from head to head. n_sums: see QuantizeJob. */
INLINE void quantize_heads(const float *const *heads, size_t n_heads, const uint16_t *factors, size_t n, size_t n_sums,
                           QuantizedBlock *out, size_t stride) {
    size_t at = 0;
    for (; at + QUANTIZED_BLOCK <= n; at += QUANTIZED_BLOCK, out++)
        quantize_block(heads, n_heads, factors, at, QUANTIZED_BLOCK, n_sums, out, stride);
    if (at < n)
        quantize_block(heads, n_heads, factors, at, KV_WOVEN_BLOCK, n_sums, out, stride);
}

static inline float dot(const float *a, const uint16_t *b, size_t n) {
    Vec sum = vec_zero();
    for (size_t i = 0; i < n; i += VEC_LANES)
        sum = vec_fma(vec_load(a + i), vec_load_half(b + i), sum);
    return vec_sum(sum);
}

#endif
