/* See bandwidth_sum.h. */
#include "eval/bench/bandwidth_sum.h"

#include "base/simd/vectors.h"

#define SUMS 8 /* independent, so that no addition waits for the one before it */

/* Prefetch distance. Hardware prefetchers stop at the end of a page, which is too near; prefetching behind the end of x
 * is harmless. */
#define AHEAD_FLOATS 2048

float SIMD_NAME(bandwidth_sum)(const float *x, size_t n) {
    Vec sums[SUMS];
    for (size_t i = 0; i < SUMS; i++)
        sums[i] = vec_zero();
    for (size_t at = 0; at < n; at += SUMS * VEC_LANES)
        for (size_t i = 0; i < SUMS; i++) {
            __builtin_prefetch(x + at + i * VEC_LANES + AHEAD_FLOATS);
            sums[i] = vec_add(sums[i], vec_load(x + at + i * VEC_LANES));
        }
    float sum = 0;
    for (size_t i = 0; i < SUMS; i++)
        sum += vec_sum(sums[i]);
    return sum;
}
