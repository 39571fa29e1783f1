/* A tile: a run of the tokens that a query sees, whose scores are held at once. */
#ifndef STOWKV_TILE_H
#define STOWKV_TILE_H

#include "base/checked.h"
#include "kvcache/kvcache.h"

#define TILE_TOKENS  512
#define SCORE_HEADS  32                 /* query heads whose scores are held at once */
#define SCORE_STRIDE (TILE_TOKENS + 16) /* no power of two: heads' scores would compete for the same cache sets */

/* Tokens of a tile that lie in one span. */
typedef struct TilePiece {
    const KvSpan *span;
    size_t first; /* token of the span, counted from its first */
    size_t at, n; /* tokens [at, at + n) of the tile */
} TilePiece;

typedef struct Tile {
    size_t begin; /* its first token, counted over all that the query sees */
    size_t n_pieces;
    TilePiece pieces[KV_MAX_SPANS];
} Tile;

#endif
