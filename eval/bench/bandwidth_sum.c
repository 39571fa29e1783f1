/* See bandwidth_sum.h. */
#include "eval/bench/bandwidth_sum.h"

#include "model/base/simd.h"

#define SUMS 8 /* independent, so that no addition waits for the one before it */

float SIMD_NAME(bandwidth_sum)(const float *x, size_t n) {
    Vec sums[SUMS];
    for (size_t i = 0; i < SUMS; i++)
        sums[i] = vec_zero();
    for (size_t at = 0; at < n; at += SUMS * VEC_LANES)
        for (size_t i = 0; i < SUMS; i++)
            sums[i] = vec_add(sums[i], vec_load(x + at + i * VEC_LANES));
    float sum = 0;
    for (size_t i = 0; i < SUMS; i++)
        sum += vec_sum(sums[i]);
    return sum;
}
