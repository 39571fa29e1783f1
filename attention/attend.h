/* The attention kernel of each instruction set, and the room that it works in; attention_kernel() chooses. */
#ifndef STOWKV_ATTEND_H
#define STOWKV_ATTEND_H

#include "attention/attention.h"
#include "attention/decoded_tile.h"
#include "model/base/simd_levels.h"

#define SCORE_ROWS 32 /* rows whose scores are held at once; a row is one head of one query */

/* The query as the different spans need it. */
enum { QUERY_PLAIN, QUERY_SHIFTED, QUERY_ROTATED, N_QUERY_FORMS };

/* Arrays of rows and tokens are as dense as head_dim allows: what a smaller one leaves is never touched. */
struct AttentionScratch {
    _Alignas(64) DecodedTile tile;
    float scores[SCORE_ROWS][TILE_TOKENS];

    /* What each row carries from tile to tile. */
    float forms[N_QUERY_FORMS][ATTENTION_ROWS * ATTENTION_MAX_DIM]; /* (rows, head_dim) */
    float out[ATTENTION_ROWS * ATTENTION_MAX_DIM];                  /* (rows, head_dim) */
    float rotated_out[ATTENTION_ROWS * ATTENTION_MAX_DIM];          /* (rows, head_dim) of rotated values */
    float max[ATTENTION_ROWS], sum[ATTENTION_ROWS];
    size_t n_visible[ATTENTION_ROWS]; /* tokens, of each query */

    /* For attention_block(). */
    AttentionQuery queries[ATTENTION_ROWS];
    KvSpan spans[ATTENTION_ROWS][KV_MAX_SPANS];
};

SIMD_DECLARE(Attend, attend, );

#endif
