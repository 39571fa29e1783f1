/* How fast this machine's threads multiply and add in F32: the roof over prompts, as bandwidth.h is over generation.
 *
 *     double flops;
 *     if (arithmetic_measure(2, SIMD_AVX512, &flops, &error) < 0) …    // floating point operations a second
 *
 * The method: independent fused multiply-adds in registers by all threads, some milliseconds long; the best of several.
 * Products of integer codes may run faster than this. */
#ifndef STOWKV_ARITHMETIC_H
#define STOWKV_ARITHMETIC_H

#include "base/error.h"
#include "base/simd/levels.h"

int arithmetic_measure(int n_threads, SimdLevel level, double *flops_per_second, Error *error);

#endif
