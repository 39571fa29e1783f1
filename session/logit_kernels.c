/* See logit_kernels.h; compiled once for each instruction set. */
#include "session/logit_kernels.h"

#include "base/simd/vectors.h"

#define ABREAST 4 /* vectors whose comparisons do not wait for each other */

static void range(const float *x, size_t n, float *least, float *largest) {
    Vec low[ABREAST], high[ABREAST];
    size_t i = 0;
    for (size_t j = 0; j < ABREAST; j++)
        low[j] = high[j] = vec_set1(x[0]);
    for (; i + ABREAST * VEC_LANES <= n; i += ABREAST * VEC_LANES)
        for (size_t j = 0; j < ABREAST; j++) {
            Vec v = vec_load(x + i + j * VEC_LANES);
            low[j] = vec_min(low[j], v);
            high[j] = vec_max(high[j], v);
        }
    Vec negative = vec_sub(vec_zero(), vec_min(vec_min(low[0], low[1]), vec_min(low[2], low[3])));
    *least = -vec_largest(negative);
    *largest = vec_largest(vec_max(vec_max(high[0], high[1]), vec_max(high[2], high[3])));
    for (; i < n; i++) {
        *least = x[i] < *least ? x[i] : *least;
        *largest = x[i] > *largest ? x[i] : *largest;
    }
}

static void weigh(const float *logits, size_t n, float best, float inverse, float *weights) {
    size_t whole = n / VEC_LANES * VEC_LANES, rest = n - whole;
    Vec top = vec_set1(best), factor = vec_set1(inverse);
    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(weights + i, vec_exp(vec_mul(vec_sub(vec_load(logits + i), top), factor)));
    Vec last = vec_exp(vec_mul(vec_sub(vec_load_partial(logits + whole, rest), top), factor));
    if (rest > 0)
        vec_store_partial(weights + whole, last, rest);
}

static void assign(const float *logits, size_t n, float top, float scale, uint16_t *buckets) {
    for (size_t i = 0; i < n; i++) /* vectorized by the compiler */
        buckets[i] = logit_bucket(logits[i], top, scale);
}

const LogitKernels SIMD_NAME(logit_kernels) = {range, weigh, assign};
