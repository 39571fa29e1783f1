/* Attention straight from woven codes (kvcache/codec/weave.h), in integers: queries, and weights times scales, are
 * quantized to 16 bits, 64 of them with one scale; the sums of their products with codes are exact. So a query that is
 * alone and a block of them give the same bits on every instruction set, whatever the order.
 *
 * A quantized number is off by half a step at most, some 2^-16 of the largest of the 64. Where keys have a scale by
 * channel, it goes into the query, once for each group. */
#ifndef STOWKV_CODE_PRODUCTS_H
#define STOWKV_CODE_PRODUCTS_H

#include "attention/query.h"
#include "attention/tile.h"
#include "base/simd/levels.h"
#include "kvcache/codec/weave.h"

#define QUANTIZED_BLOCK 64
#define QUANTIZED_STEPS (QUANTIZED_BLOCK / 4)

/* 32 or 64 elements quantized to 16 bits, each scale * an integer; words as base/simd/codes.h orders them. */
typedef struct QuantizedBlock {
    int32_t words[2 * QUANTIZED_STEPS];
    float scale;     /* NaN where an element is not finite */
    int32_t sums[2]; /* of the integers: of each 32, or of all in the first */
    int32_t unused;
} QuantizedBlock;

/* Whether a side's codes are multiplied as integers; other codecs are decoded. */
static inline bool is_coded(const KvSpan *span, KvSide side) {
    return kv_is_woven(span->side[side].codec, span->side[side].group.head_dim);
}

/* scores[h][at + t] = q[h] . key first + t, for query heads h and the tokens of a piece whose keys are coded. */
typedef void ScoreCodes(QuantizedBlock *scratch,                /* (n_heads, head_dim / 64, rounded up) */
                        const TilePiece *piece, const float *q, /* (n_heads, head_dim) */
                        size_t n_heads, float (*scores)[SCORE_STRIDE]);

/* out[h] += sum over t of weights[h][at + t] * value first + t, for query heads h, each as far as it sees: n_seen[h]
 * tokens of the tile. Later heads see as much as earlier ones, or more. */
typedef void AddCodes(QuantizedBlock *scratch, /* (n_heads, head_dim / 32) */
                      const TilePiece *piece, float (*weights)[SCORE_STRIDE], const size_t *n_seen, size_t n_heads,
                      float *out, size_t stride); /* (n_heads, head_dim), heads `stride` apart */

SIMD_DECLARE(ScoreCodes, score_codes, );
SIMD_DECLARE(AddCodes, add_codes, );

#endif
