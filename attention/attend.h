/* The attention kernels of each instruction set, and the room that they work in; attention_kernels() chooses. */
#ifndef STOWKV_ATTEND_H
#define STOWKV_ATTEND_H

#include "attention/attention.h"
#include "attention/code_products.h"
#include "attention/decoded_tile.h"
#include "base/simd/levels.h"

/* The query as the different spans need it. */
enum { QUERY_PLAIN, QUERY_SHIFTED, QUERY_ROTATED, N_QUERY_FORMS };

/* What a row has seen: its output, relative to the weight of its largest product and not divided by the sum yet, that
 * of rotated values apart. */
typedef struct Partial {
    float *out;     /* (head_dim) */
    float *rotated; /* (head_dim) still rotated */
    float *max, *sum;
} Partial;

#define PARTIAL_FLOATS(head_dim) ((2 * (head_dim) + 2 + 15) / 16 * 16)

static inline Partial partial_at(float *partials, size_t index, size_t head_dim) {
    float *out = partials + index * PARTIAL_FLOATS(head_dim), *end = out + 2 * head_dim;
    return (Partial){out, out + head_dim, end, end + 1};
}

/* Arrays of rows and tokens are as dense as head_dim allows: what a smaller one leaves is never touched. */
struct AttentionScratch {
    _Alignas(64) DecodedTile tile;
    NumberBlock numbers[SCORE_ROWS * ATTENTION_MAX_DIM / KV_WOVEN_BLOCK]; /* of queries, or weights */
    float scores[SCORE_ROWS][SCORE_STRIDE];
    float forms[N_QUERY_FORMS][ATTENTION_ROWS * ATTENTION_MAX_DIM];   /* (rows, head_dim) */
    float totals[ATTENTION_ROWS * PARTIAL_FLOATS(ATTENTION_MAX_DIM)]; /* partials of all rows, from tile to tile */
    float tiles[SCORE_ROWS * PARTIAL_FLOATS(ATTENTION_MAX_DIM)];      /* of some rows and the tile under way */
    size_t n_visible[ATTENTION_ROWS];                                 /* tokens, of each query */

    /* For attention_items(). */
    AttentionQuery queries[ATTENTION_ROWS];
    KvSpan spans[ATTENTION_ROWS][KV_MAX_SPANS];
};

struct AttentionKernels {
    /* Queries may see different tokens, and the same tokens in different encodings; it is fastest where they do not. */
    void (*attend)(const AttentionShape *shape, const AttentionQuery *queries,
                   size_t n_queries, /* times n_group at most ATTENTION_ROWS, or 1 */
                   AttentionScratch *scratch);

    /* Of one query, tiles [begin, end) of what it sees, each by itself. */
    void (*attend_tiles)(const AttentionShape *shape, const AttentionQuery *query, size_t begin, size_t end,
                         float *partials, size_t stride, /* (n_tiles, n_group) partials, tiles `stride` floats apart */
                         AttentionScratch *scratch);

    /* Puts together all tiles of a query: what attend() gives, to the bit. */
    void (*merge)(const AttentionShape *shape, const AttentionQuery *query, size_t n_tiles, float *partials,
                  size_t stride, AttentionScratch *scratch);
};

SIMD_DECLARE(const AttentionKernels, attention_kernels, );

#endif
