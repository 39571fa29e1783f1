/* The attention kernels of each instruction set, and the scratch memory that they share; attention_kernels() chooses.
 * A query head is one head of one query. */
#ifndef STOWKV_ATTEND_H
#define STOWKV_ATTEND_H

#include "attention/code_products.h"
#include "attention/decoded_tile.h"
#include "attention/partial.h"
#include "attention/query.h"
#include "base/simd/levels.h"

/* A query as spans need it, with zeros where they have padding: as it is, turned back (RoPE) by the tokens dropped, or
 * rotated as rotated codecs are. */
enum { QUERY_PLAIN, QUERY_SHIFTED, QUERY_ROTATED, N_QUERY_FORMS };

/* Sized for the largest shape; a smaller one uses the beginning of each array and never touches the rest. */
struct AttentionScratch {
    _Alignas(64) DecodedTile tile;
    QuantizedBlock quantized[SCORE_HEADS * ATTENTION_MAX_DIM / KV_WOVEN_BLOCK]; /* quantized queries, or weights */
    float scores[SCORE_HEADS][SCORE_STRIDE];                                    /* then weights */
    float forms[N_QUERY_FORMS][ATTENTION_Q_HEADS * ATTENTION_MAX_DIM];          /* (query heads, row_dim) */
    float totals[ATTENTION_Q_HEADS * PARTIAL_FLOATS(ATTENTION_MAX_DIM)];        /* partials of the tiles so far */
    float partials[SCORE_HEADS * PARTIAL_FLOATS(ATTENTION_MAX_DIM)];            /* of the tile under way */
    size_t n_visible[ATTENTION_Q_HEADS];                                        /* tokens in its view, of each query */
    size_t n_hidden[ATTENTION_Q_HEADS]; /* the first of them, which it does not see */

    /* For attention_items(). */
    AttentionQuery queries[ATTENTION_Q_HEADS];
    KvSpan spans[ATTENTION_Q_HEADS][KV_MAX_SPANS];
};

/* Queries in order of position. They may see different tokens, and the same tokens in different encodings; it is
 * fastest where they do not. */
typedef void AttendBlock(const AttentionShape *shape, const AttentionQuery *queries,
                         size_t n_queries, /* times q_per_kv at most ATTENTION_Q_HEADS */
                         AttentionScratch *scratch);

/* A query that is alone; its output has the same bits as in a block. */
typedef void AttendOne(const AttentionShape *shape, const AttentionQuery *query, AttentionScratch *scratch);

/* Tiles [begin, end) of what a query sees, each by itself. */
typedef void AttendTiles(const AttentionShape *shape, const AttentionQuery *query, size_t begin, size_t end,
                         float *partials, size_t stride, /* (n_tiles, q_per_kv), tiles `stride` floats apart */
                         AttentionScratch *scratch);

/* Puts together all tiles of a query; the output has the same bits as AttendOne's. */
typedef void MergeTiles(const AttentionShape *shape, const AttentionQuery *query, size_t n_tiles, float *partials,
                        size_t stride, AttentionScratch *scratch);

/* How keys or values are read. */
typedef AttentionPath PathOf(KvCodecId codec, size_t row_dim);

struct AttentionKernels {
    AttendBlock *block;
    AttendOne *one;
    AttendTiles *tiles;
    MergeTiles *merge;
    PathOf *path;
};

SIMD_DECLARE(AttendBlock, attend_block, );
SIMD_DECLARE(AttendOne, attend_one, );
SIMD_DECLARE(AttendTiles, attend_tiles, );
SIMD_DECLARE(MergeTiles, merge_tiles, );
SIMD_DECLARE(PathOf, path_of, );
SIMD_DECLARE(const AttentionKernels, attention_kernels, );

#endif
