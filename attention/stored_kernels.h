/* Attention of a query that is alone, straight from what a span stores: a row of kernels for each codec and instruction
 * set. Decoded values stay in registers; each score and each output is the sum, in the same order, that a batch makes
 * from decoded tiles. */
#ifndef STOWKV_STORED_KERNELS_H
#define STOWKV_STORED_KERNELS_H

#include "kvcache/kvcache.h"
#include "model/base/simd_levels.h"

typedef struct StoredKernels {
    bool from_codes; /* else a few tokens at a time are decoded */

    /* scores[r][t] = q[r] . key first + t */
    void (*score)(const KvSpan *span, size_t first, size_t n_tokens,
                  const float *q,                               // (n_rows, head_dim)
                  size_t n_rows, float *scores, size_t stride); // (n_rows, n_tokens), rows `stride` apart

    /* out[r] += sum over t of weights[r][t] * value first + t */
    void (*add)(const KvSpan *span, size_t first, size_t n_tokens, const float *weights,
                size_t stride,                                 // (n_rows, n_tokens)
                size_t n_rows, float *out, size_t out_stride); // (n_rows, head_dim)
} StoredKernels;

SIMD_DECLARE(const StoredKernels, stored_kernels, [KV_CODEC_COUNT]);

#endif
