/* Whether numbers are finite. */
#ifndef STOWKV_FINITE_H
#define STOWKV_FINITE_H

#include "base/half.h"

#include <stdbool.h>
#include <stddef.h>

/* NaN and infinity times 0 are NaN, whose bits are not those of 0. No branch for each element, so that the loop
 * vectorizes. */
static inline bool all_finite(const float *x, size_t n) {
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits |= float_to_bits(x[i] * 0.0f) << 1; /* without the sign */
    return bits == 0;
}

#endif
