/* Products of packed matrices with activations: one table for each instruction set.
 *
 * Coded weights meet activations of 16 bits: 32 of them are s times whole numbers in [-32639, 32639], so that all
 * products of a block and their sum are exact integers. What is summed in F32, the blocks of a row in order, is the
 * same for one token and for many, on every instruction set and any number of threads: results agree to the bit (but
 * for the scalar level, which does not fuse products with sums). F32, F16 and BF16 weights meet F32 activations, column
 * after column.
 *
 * Activations come in tiles of `token_tile` tokens, a lane of the tile beside the next; a token that is alone is a tile
 * of one. In a tile of T tokens a block of 32 columns takes TILE_INTS * T 32-bit words: two for each of 8 steps of 4
 * columns each (base/simd/codes.h), the scale s (F32), the sums of the whole numbers over the block and over its halves
 * (integers), and s times these. */
#ifndef STOWKV_MATMUL_H
#define STOWKV_MATMUL_H

#include "base/simd/levels.h"
#include "cpu/packed_matrix.h"

enum { TILE_WORDS = 0, TILE_SCALE = 16, TILE_SUMS = 17, TILE_OFFSETS = 20, TILE_INTS = 23 };

typedef struct MatmulKernels {
    size_t token_tile;

    /* Up to token_tile tokens to 16-bit numbers; what is missing is zero. A token that is alone has `stride` 1, others
     * token_tile. NaN and infinity spread over their block, as scale NaN. */
    void (*to_tile)(const float *x, // (n_tokens, n_columns), n_columns a multiple of 32
                    size_t n_tokens, size_t n_columns, size_t stride,
                    int32_t *tile); // (n_columns / 32, TILE_INTS, stride)

    /* The same in F32: (n_columns, token_tile). */
    void (*to_columns)(const float *x, size_t n_tokens, size_t n_columns, float *columns);

    /* One token by panels [panel_begin, panel_end): y[row] = w[row] . x. `x` is the tile of the token for coded
     * types, else the token in F32. */
    void (*matvec)(const PackedMatrix *w, const void *x, size_t panel_begin, size_t panel_end, float *y); // (n_rows)

    /* Tokens [0, n_tokens) by pairs of panels [pair_begin, pair_end). */
    void (*matmul)(const PackedMatrix *w,
                   const void *tiles, // for coded types, else columns, a tile behind the other
                   size_t n_tokens, size_t pair_begin, size_t pair_end,
                   void *room, // matmul_room_bytes(), aligned to 64
                   float *y);  // (n_tokens, n_rows)
} MatmulKernels;

/* Room for a pair of panels with codes in bytes and scales in F32, or with F32 numbers. */
static inline size_t matmul_room_bytes(size_t n_columns) {
    return 2 * PANEL_ROWS * n_columns * sizeof(float);
}

/* 32-bit words of a tile in either form. */
static inline size_t matmul_tile_words(TensorType type, size_t n_columns, size_t n_tokens) {
    return (packed_is_coded(type) ? n_columns / PACKED_BLOCK * TILE_INTS : n_columns) * n_tokens;
}

SIMD_DECLARE(const MatmulKernels, matmul_kernels, );

#endif
