/* A tile of tokens, decoded once for all queries of a block. Queries come in order of position and may disagree about
 * a token (FP16 for the earlier ones, codes for the later ones): the tile remembers where each token was decoded from,
 * and decodes again only those whose source is another. */
#ifndef STOWKV_DECODED_TILE_H
#define STOWKV_DECODED_TILE_H

#include "attention/attention.h"
#include "attention/tile.h"
#include "base/simd/levels.h"

typedef struct DecodedTile {
    /* Of each token, an address in what it was decoded from that no other token has; 0: not decoded. */
    uintptr_t sources[TILE_TOKENS];
    float keys[TILE_TOKENS * ATTENTION_MAX_DIM];   /* (TILE_TOKENS, head_dim) */
    float values[TILE_TOKENS * ATTENTION_MAX_DIM]; /* (TILE_TOKENS, head_dim) */
    float panels[TILE_TOKENS * ATTENTION_MAX_DIM]; /* (TILE_TOKENS / VEC_LANES, head_dim, VEC_LANES) keys in lanes */
} DecodedTile;

/* Decodes those tokens of the pieces that the tile does not hold yet. */
typedef void DecodeTile(DecodedTile *tile, const TilePiece *pieces, size_t n_pieces, size_t head_dim);

SIMD_DECLARE(DecodeTile, decode_tile, );

static inline void decoded_tile_clear(DecodedTile *tile) {
    for (size_t t = 0; t < TILE_TOKENS; t++)
        tile->sources[t] = 0;
}

#endif
