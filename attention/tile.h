/* A tile: tokens whose scores are held at once. */
#ifndef STOWKV_TILE_H
#define STOWKV_TILE_H

#include "base/checked.h"
#include "kvcache/kvcache.h"

#define TILE_TOKENS  512
#define SCORE_ROWS   32                 /* rows whose scores are held at once; a row is one head of one query */
#define SCORE_STRIDE (TILE_TOKENS + 16) /* no power of two, so that the rows' scores share no line of the cache */

/* Tokens of a tile that lie in one span. */
typedef struct TilePiece {
    const KvSpan *span;
    size_t first; /* token of the span */
    size_t at, n; /* tokens [at, at + n) of the tile */
} TilePiece;

#endif
