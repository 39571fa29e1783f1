/* A tile of tokens, decoded once for all queries of a block; keys also as panels, with a token in each lane. Queries
 * come in order of position and may disagree about a token (FP16 for the earlier ones, codes for the later ones): the
 * tile remembers where each token was decoded from, and decodes again only those that now come from elsewhere. */
#ifndef STOWKV_DECODED_TILE_H
#define STOWKV_DECODED_TILE_H

#include "attention/query.h"
#include "attention/tile.h"
#include "base/simd/levels.h"

typedef struct DecodedTile {
    /* sources[t]: an address unique to the stored token that slot t was decoded from; 0: empty. */
    uintptr_t sources[TILE_TOKENS];
    float keys[TILE_TOKENS * ATTENTION_MAX_DIM];   /* (TILE_TOKENS, head_dim) */
    float values[TILE_TOKENS * ATTENTION_MAX_DIM]; /* (TILE_TOKENS, head_dim) */
    float panels[TILE_TOKENS * ATTENTION_MAX_DIM]; /* (TILE_TOKENS / VEC_LANES, head_dim, VEC_LANES) keys */
} DecodedTile;

/* Decodes those tokens of the tile that `decoded` does not hold yet; coded sides (is_coded()) are left out. */
typedef void DecodeTile(DecodedTile *decoded, const Tile *tile, size_t head_dim);

SIMD_DECLARE(DecodeTile, decode_tile, );

static inline void decoded_tile_clear(DecodedTile *decoded) {
    for (size_t t = 0; t < TILE_TOKENS; t++)
        decoded->sources[t] = 0;
}

#endif
