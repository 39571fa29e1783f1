/* See arithmetic_fma.h. */
#include "eval/bench/arithmetic_fma.h"

#include "base/simd/vectors.h"

#define SUMS 12 /* two units, four cycles, and some to spare */

float SIMD_NAME(arithmetic_fma)(float factor, float term, size_t n, size_t *n_lanes) {
    Vec factors = vec_set1(factor), terms = vec_set1(term), y[SUMS];
    for (size_t i = 0; i < SUMS; i++)
        y[i] = vec_zero();
    for (size_t step = 0; step < n; step++)
        for (size_t i = 0; i < SUMS; i++)
            y[i] = vec_fma(y[i], factors, terms);
    float sum = 0;
    for (size_t i = 0; i < SUMS; i++)
        sum += vec_sum(y[i]);
    *n_lanes = SUMS * VEC_LANES;
    return sum;
}
