/* Activations as products read them. A strip has `strip_tokens` tokens, a lane of the strip beside the next; a token
 * that is alone is a strip of one. In a strip of T tokens a block of 32 columns takes STRIP_INTS * T 32-bit words: two
 * for each of 8 steps of 4 columns each (base/simd/codes.h), the scale s (F32), the sums of the integers over the block
 * and over its halves (integers), and s times these. */
#ifndef STOWKV_ACTIVATION_STRIPS_H
#define STOWKV_ACTIVATION_STRIPS_H

#include "base/simd/levels.h"
#include "cpu/packed_matrix.h"

enum { STRIP_WORDS = 0, STRIP_SCALE = 16, STRIP_SUMS = 17, STRIP_OFFSETS = 20, STRIP_INTS = 23 };

/* 32-bit words of a strip in either form. */
static inline size_t activation_strip_words(TensorType type, size_t n_columns, size_t n_tokens) {
    return (packed_is_coded(type) ? n_columns / PACKED_BLOCK * STRIP_INTS : n_columns) * n_tokens;
}

/* Quantizes up to strip_tokens tokens to 16 bits; what is missing is zero. A token that is alone has `stride` 1, others
 * strip_tokens. NaN and infinity spread over their block, as scale NaN. */
typedef void ToStrip(const float *x, // (n_tokens, n_columns), n_columns a multiple of 32
                     size_t n_tokens, size_t n_columns, size_t stride,
                     int32_t *strip); // (n_columns / 32, STRIP_INTS, stride)

/* The same in F32: (n_columns, strip_tokens). */
typedef void ToColumns(const float *x, size_t n_tokens, size_t n_columns, float *columns);

SIMD_DECLARE(ToStrip, to_strip, );
SIMD_DECLARE(ToColumns, to_columns, );

#endif
