/* Attention of a block of queries, compiled once for each instruction set. Tiles are the outer loop: a tile whose codes
 * are not multiplied is decoded once for all queries that see it. */
#include "attention/attend_tile.h"
#include "attention/float_kernels.h"

#define PANEL_TOKENS (PANEL_BLOCK * VEC_LANES)
#define CHUNK_BYTES  16384 /* of values that meet all query heads before the next: half of a first-level cache */

/* Scores with decoded tokens, in whole panels: also with those that share a panel with the piece's last token. */
static void score_piece(const QueryHeads *heads, const TilePiece *piece, const float *q, size_t n) {
    AttentionScratch *s = heads->scratch;
    float before[SCORE_HEADS][PANEL_TOKENS]; /* scores of earlier pieces' tokens in the first panels */
    size_t row_dim = heads->row_dim, end = piece->at + piece->n;
    size_t begin = piece->at / PANEL_TOKENS * PANEL_TOKENS, n_before = piece->at - begin;
    for (size_t i = 0; i < n; i++)
        memcpy(before[i], s->scores[i] + begin, n_before * sizeof **before);
    for (size_t t = begin; t < end; t += PANEL_TOKENS)
        for (size_t i = 0; i < n; i += HEAD_BLOCK)
            WITH_HEADS(head_block(n - i), score_panels, q + i * row_dim, s->tile.panels + t * row_dim, row_dim,
                       s->scores[i] + t, SCORE_STRIDE);
    for (size_t i = 0; i < n; i++)
        memcpy(s->scores[i] + begin, before[i], n_before * sizeof **before);
}

/* Decoded tokens [begin, end) of the tile times the weights of query heads from `first` on. */
static AddJob add_job(const QueryHeads *heads, size_t begin, size_t end, size_t first, float *out) {
    AttentionScratch *s = heads->scratch;
    size_t row_dim = heads->row_dim, stride = PARTIAL_FLOATS(row_dim);
    return (AddJob){.weights = s->scores[first] + begin,
                    .weight_stride = SCORE_STRIDE,
                    .values = decoded_tokens(s->tile.values + begin * row_dim, row_dim),
                    .n_tokens = end - begin,
                    .head_dim = row_dim,
                    .out = out + first * stride,
                    .out_stride = stride};
}

/* Adds decoded tokens, for each query head as far as it sees. Later query heads see as much as earlier ones, or more:
 * a block of them adds together what its first one sees, and then each the rest. */
static void add_piece(const QueryHeads *heads, const TilePiece *piece, const size_t *n_seen, size_t n, float *out) {
    size_t chunk = CHUNK_BYTES / (heads->row_dim * sizeof(float)), piece_end = piece->at + piece->n;
    for (size_t begin = piece->at, end; begin < piece_end; begin = end) {
        end = at_most(begin + chunk, piece_end);
        for (size_t i = 0; i < n; i += HEAD_BLOCK) {
            size_t n_block = head_block(n - i), shared = at_most(end, n_seen[i]);
            if (shared > begin) {
                AddJob job = add_job(heads, begin, shared, i, out);
                WITH_HEADS(n_block, add_values, STORED_FLOAT, &job);
            }
            size_t rest = shared > begin ? shared : begin;
            for (size_t j = i; j < i + n_block; j++)
                if (at_most(end, n_seen[j]) > rest) {
                    AddJob job = add_job(heads, rest, at_most(end, n_seen[j]), j, out);
                    add_values(1, STORED_FLOAT, &job);
                }
        }
    }
}

/* Whether `later` sees what `query` sees, and perhaps more tokens behind that. */
static bool sees_alike(const AttentionQuery *query, const AttentionQuery *later) {
    if (query->n_spans != later->n_spans)
        return false;
    for (size_t s = 0; s < query->n_spans; s++) {
        const KvSpan *a = &query->spans[s], *b = &later->spans[s];
        bool grows = s + 1 == query->n_spans && a->n_tokens < b->n_tokens;
        if (a->records[KV_KEYS] != b->records[KV_KEYS] || a->shifted != b->shifted ||
            (a->n_tokens != b->n_tokens && !grows))
            return false;
    }
    return true;
}

/* The tile that begins at token `begin`, for queries [first, end) that see alike; the last sees most. */
static void attend_alike(const QueryHeads *heads, size_t begin, size_t first, size_t end) {
    AttentionScratch *s = heads->scratch;
    const AttentionQuery *last = &heads->queries[end - 1];
    Tile tile = cut_tile(last, begin);
    if (tile.n_pieces == 0)
        return;
    while (s->n_visible[first] <= begin)
        first++;
    SIMD_NAME(decode_tile)(&s->tile, &tile, heads->row_dim);
    for (size_t i = first * heads->n_heads, n; i < end * heads->n_heads; i += n) {
        n = at_most(end * heads->n_heads - i, SCORE_HEADS);
        attend_tile(heads, &tile, i, n, score_piece, add_piece, s->partials);
        merge_partials(heads, last, i, n, s->partials);
    }
}

/* A tile and all queries, in runs of those that see alike. */
static void attend_queries(const QueryHeads *heads, size_t begin) {
    const AttentionQuery *queries = heads->queries;
    decoded_tile_clear(&heads->scratch->tile);
    for (size_t first = 0, end; first < heads->n_queries; first = end) {
        for (end = first + 1; end < heads->n_queries && sees_alike(&queries[end - 1], &queries[end]);)
            end++;
        attend_alike(heads, begin, first, end);
    }
}

void SIMD_NAME(attend_block)(const AttentionShape *shape, const AttentionQuery *queries, size_t n_queries,
                             AttentionScratch *scratch) {
    QueryHeads heads = query_heads(shape, queries, n_queries, 0, scratch);
    size_t longest = 0;
    for (size_t i = 0; i < n_queries; i++) {
        begin_query(&heads, i);
        begin_totals(&heads, i);
        longest = at_least(longest, scratch->n_visible[i]);
    }
    for (size_t begin = 0; begin < longest; begin += TILE_TOKENS)
        attend_queries(&heads, begin);
    for (size_t i = 0; i < n_queries; i++)
        finish_query(&heads, i);
}
