/* The size of the tiles of activation_tiles.h, for sources of stowkv_simd_library() only. */
#ifndef STOWKV_TOKEN_TILE_H
#define STOWKV_TOKEN_TILE_H

#include "base/simd/vectors.h"

/* Tokens of a tile: what is held in registers is sums of TOKEN_TILE tokens by 2 (4) vectors of rows. */
#if VEC_LANES == 16
#define TOKEN_TILE 12
#else
#define TOKEN_TILE 4
#endif

#endif
