/* Passes over all logits of a vocabulary, once for each instruction set. */
#ifndef STOWKV_LOGIT_KERNELS_H
#define STOWKV_LOGIT_KERNELS_H

#include "base/simd/levels.h"

#include <stddef.h>
#include <stdint.h>

#define LOGIT_BUCKETS 1024

typedef struct LogitKernels {
    /* The least and the largest of x[0 … n - 1], n > 0. */
    void (*range)(const float *x, size_t n, float *least, float *largest);
    /* weights[i] = exp((logits[i] - best) * inverse), relative error 2e-7 and that of the exponent in F32. */
    void (*weigh)(const float *logits, size_t n, float best, float inverse, float *weights);
    /* buckets[i] = (top - logits[i]) * scale, at most LOGIT_BUCKETS - 1. */
    void (*assign)(const float *logits, size_t n, float top, float scale, uint16_t *buckets);
} LogitKernels;

SIMD_DECLARE(const LogitKernels, logit_kernels, );

/* For scalars, with the same result. */
static inline uint16_t logit_bucket(float logit, float top, float scale) {
    float place = (top - logit) * scale;
    return (uint16_t)(int32_t)(place < LOGIT_BUCKETS - 1 ? place : LOGIT_BUCKETS - 1);
}

#endif
