/* Activations as products read them, in strips of `strip_tokens` tokens; a token that is alone is a strip of one. For
 * coded weights they are quantized. In a strip of T tokens a block of 32 columns takes STRIP_INTS * T 32-bit words:
 * two for each of 8 steps of 4 columns each (base/simd/codes.h), the scale s (F32), the sums of the integers over the
 * block and over its halves (integers), and s times these sums (F32). Other weights meet columns of F32. */
#ifndef STOWKV_ACTIVATION_STRIPS_H
#define STOWKV_ACTIVATION_STRIPS_H

#include "base/simd/levels.h"
#include "model/packed_matrix.h"

enum { STRIP_WORDS = 0, STRIP_SCALE = 16, STRIP_SUMS = 17, STRIP_OFFSETS = 20, STRIP_INTS = 23 };

/* 32-bit words of a strip of n_tokens, in the form that weights of `type` meet. */
static inline size_t activation_strip_words(TensorType type, size_t n_columns, size_t n_tokens) {
    return (packed_is_coded(type) ? n_columns / PACKED_BLOCK * STRIP_INTS : n_columns) * n_tokens;
}

/* Quantizes up to strip_tokens tokens to 16 bits; those that are missing are zero. `stride` is 1 for a token that is
 * alone, else strip_tokens. A block that holds NaN or infinity gets the scale NaN. */
typedef void ToStrip(const float *x, // (n_tokens, n_columns), n_columns a multiple of 32
                     size_t n_tokens, size_t n_columns, size_t stride,
                     int32_t *strip); // (n_columns / 32, STRIP_INTS, stride)

/* Transposes up to strip_tokens tokens; those that are missing are zero. */
typedef void ToColumns(const float *x, // (n_tokens, n_columns)
                       size_t n_tokens, size_t n_columns,
                       float *columns); // (n_columns, strip_tokens)

SIMD_DECLARE(ToStrip, to_strip, );
SIMD_DECLARE(ToColumns, to_columns, );

#endif
