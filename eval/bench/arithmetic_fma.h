/* The kernel of arithmetic.c, once for each instruction set. */
#ifndef STOWKV_ARITHMETIC_FMA_H
#define STOWKV_ARITHMETIC_FMA_H

#include "base/simd/levels.h"

#include <stddef.h>

/* y = y * factor + term, n times from 0 on, in each lane of as many vectors as keep the units busy. Returns the sum
 * over all lanes, and the number of lanes. */
typedef float ArithmeticFma(float factor, float term, size_t n, size_t *n_lanes);

SIMD_DECLARE(ArithmeticFma, arithmetic_fma, );

#endif
