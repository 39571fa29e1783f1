/* Attention of a query that is alone to what code_products.h does not multiply: FP16, nf4 and fp8 as a span stores
 * them, decoded in registers; other codecs a few tokens at a time. Each score and each output is the sum, in the same
 * order, that a block of queries makes from decoded tiles. */
#ifndef STOWKV_STORED_KERNELS_H
#define STOWKV_STORED_KERNELS_H

#include "attention/tile.h"
#include "base/simd/levels.h"

/* scores[h][at + t] = q[h] . key first + t, for the tokens of a piece. */
typedef void ScoreStored(const TilePiece *piece,
                         const float *q, // (n_heads, head_dim)
                         size_t n_heads, float (*scores)[SCORE_STRIDE]);

/* out[h] += sum over t of weights[h][at + t] * value first + t */
typedef void AddStored(const TilePiece *piece, float (*weights)[SCORE_STRIDE], size_t n_heads, float *out,
                       size_t stride); // (n_heads, head_dim), `stride` apart

SIMD_DECLARE(ScoreStored, score_stored, );
SIMD_DECLARE(AddStored, add_stored, );

#endif
