/* See bandwidth_sum.h. */
#include "eval/bench/bandwidth_sum.h"

#include "base/simd/vectors.h"

#define SUMS 8 /* independent, so that no addition waits for the one before it */

/* Hardware fetches ahead only as far as a page goes, which is not far enough; what lies behind x is asked for in vain.
 */
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
