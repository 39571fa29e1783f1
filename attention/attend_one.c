/* Attention of a query that is alone, compiled once for each instruction set: tile after tile, or some tiles by
 * themselves, so that threads may share them. FP16, nf4 and fp8 are read as they are stored. */
#include "attention/attend_tile.h"
#include "attention/stored_kernels.h"

static void score_piece(const QueryHeads *heads, const TilePiece *piece, const float *q, size_t n) {
    SIMD_NAME(score_stored)(piece, q, n, heads->scratch->scores);
}

static void add_piece(const QueryHeads *heads, const TilePiece *piece, const size_t *n_seen, size_t n, float *out) {
    (void)n_seen; /* all of them */
    SIMD_NAME(add_stored)(piece, heads->scratch->scores, n, out, PARTIAL_FLOATS(heads->row_dim));
}

void SIMD_NAME(attend_one)(const AttentionShape *shape, const AttentionQuery *query, AttentionScratch *scratch) {
    for (size_t head = 0; head < shape->q_per_kv; head += ATTENTION_Q_HEADS) {
        QueryHeads heads = query_heads(shape, query, 1, head, scratch);
        begin_query(&heads, 0);
        begin_totals(&heads, 0);
        for (size_t begin = 0; begin < scratch->n_visible[0]; begin += TILE_TOKENS) {
            Tile tile = cut_tile(query, begin);
            for (size_t first = 0, n; first < heads.n_heads; first += n) {
                n = at_most(heads.n_heads - first, SCORE_HEADS);
                attend_tile(&heads, &tile, first, n, score_piece, add_piece, scratch->partials);
                merge_partials(&heads, query, first, n, scratch->partials);
            }
        }
        finish_query(&heads, 0);
    }
}

void SIMD_NAME(attend_tiles)(const AttentionShape *shape, const AttentionQuery *query, size_t begin, size_t end,
                             float *partials, size_t stride, AttentionScratch *scratch) {
    size_t partial_floats = PARTIAL_FLOATS(row_dim_of(query));
    for (size_t head = 0; head < shape->q_per_kv; head += ATTENTION_Q_HEADS) {
        QueryHeads heads = query_heads(shape, query, 1, head, scratch);
        begin_query(&heads, 0);
        for (size_t i = begin; i < end; i++) {
            Tile tile = cut_tile(query, i * TILE_TOKENS);
            float *out = partials + i * stride + head * partial_floats;
            for (size_t first = 0; first < heads.n_heads; first += SCORE_HEADS)
                attend_tile(&heads, &tile, first, at_most(heads.n_heads - first, SCORE_HEADS), score_piece, add_piece,
                            out + first * partial_floats);
        }
    }
}

void SIMD_NAME(merge_tiles)(const AttentionShape *shape, const AttentionQuery *query, size_t n_tiles, float *partials,
                            size_t stride, AttentionScratch *scratch) {
    for (size_t head = 0; head < shape->q_per_kv; head += ATTENTION_Q_HEADS) {
        QueryHeads heads = query_heads(shape, query, 1, head, scratch);
        begin_totals(&heads, 0);
        for (size_t i = 0; i < n_tiles; i++)
            merge_partials(&heads, query, 0, heads.n_heads,
                           partials + i * stride + head * PARTIAL_FLOATS(heads.row_dim));
        finish_query(&heads, 0);
    }
}

const AttentionKernels SIMD_NAME(attention_kernels) = {SIMD_NAME(attend_block), SIMD_NAME(attend_one),
                                                       SIMD_NAME(attend_tiles), SIMD_NAME(merge_tiles),
                                                       SIMD_NAME(path_of)};
