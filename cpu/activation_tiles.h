/* Activations as products read them. A tile has `token_tile` tokens, a lane of the tile beside the next; a token that
 * is alone is a tile of one. In a tile of T tokens a block of 32 columns takes TILE_INTS * T 32-bit words: two for each
 * of 8 steps of 4 columns each (base/simd/codes.h), the scale s (F32), the sums of the whole numbers over the block and
 * over its halves (integers), and s times these. */
#ifndef STOWKV_ACTIVATION_TILES_H
#define STOWKV_ACTIVATION_TILES_H

#include "base/simd/levels.h"
#include "cpu/packed_matrix.h"

enum { TILE_WORDS = 0, TILE_SCALE = 16, TILE_SUMS = 17, TILE_OFFSETS = 20, TILE_INTS = 23 };

/* 32-bit words of a tile in either form. */
static inline size_t activation_tile_words(TensorType type, size_t n_columns, size_t n_tokens) {
    return (packed_is_coded(type) ? n_columns / PACKED_BLOCK * TILE_INTS : n_columns) * n_tokens;
}

/* Up to token_tile tokens to 16-bit numbers; what is missing is zero. A token that is alone has `stride` 1, others
 * token_tile. NaN and infinity spread over their block, as scale NaN. */
typedef void ToTile(const float *x, // (n_tokens, n_columns), n_columns a multiple of 32
                    size_t n_tokens, size_t n_columns, size_t stride,
                    int32_t *tile); // (n_columns / 32, TILE_INTS, stride)

/* The same in F32: (n_columns, token_tile). */
typedef void ToColumns(const float *x, size_t n_tokens, size_t n_columns, float *columns);

SIMD_DECLARE(ToTile, to_tile, );
SIMD_DECLARE(ToColumns, to_columns, );

#endif
