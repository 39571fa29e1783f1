/* The kernel of bandwidth.c, once for each instruction set. */
#ifndef STOWKV_BANDWIDTH_SUM_H
#define STOWKV_BANDWIDTH_SUM_H

#include "base/simd/levels.h"

#include <stddef.h>

/* The sum of x[0 … n - 1], n a multiple of 128: eight vectors at once, so that reading is all it waits for. */
typedef float BandwidthSum(const float *x, size_t n);

SIMD_DECLARE(BandwidthSum, bandwidth_sum, );

#endif
