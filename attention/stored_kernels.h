/* Attention of a query that is alone to what code_products.h does not multiply: FP16 and nf4 as a span stores them,
 * decoded in registers; other codecs a few tokens at a time. Each score and each output is the sum, in the same order,
 * that a batch makes from decoded tiles. */
#ifndef STOWKV_STORED_KERNELS_H
#define STOWKV_STORED_KERNELS_H

#include "base/simd/levels.h"
#include "kvcache/kvcache.h"

/* scores[r][t] = q[r] . key first + t */
typedef void ScoreStored(const KvSpan *span, size_t first, size_t n_tokens,
                         const float *q,                               // (n_rows, head_dim)
                         size_t n_rows, float *scores, size_t stride); // (n_rows, n_tokens), rows `stride` apart

/* out[r] += sum over t of weights[r][t] * value first + t */
typedef void AddStored(const KvSpan *span, size_t first, size_t n_tokens, const float *weights,
                       size_t stride,                                 // (n_rows, n_tokens)
                       size_t n_rows, float *out, size_t out_stride); // (n_rows, head_dim)

SIMD_DECLARE(ScoreStored, score_stored, );
SIMD_DECLARE(AddStored, add_stored, );

#endif
