/* What attend_block.c and attend_one.c share: the query heads of a call in the forms that their spans need, and a
 * tile's way from scores through weights to partials. To be included by sources of stowkv_simd_library() only.
 *
 * Rotated codecs store H k and H v (H orthonormal): their scores need H q, and their part of the output is summed apart
 * and rotated back once, at the end. */
#ifndef STOWKV_ATTEND_TILE_H
#define STOWKV_ATTEND_TILE_H

#include "attention/attend.h"
#include "attention/softmax.h"

/* Heads [head, head + n_heads) of each query. The query heads of all queries are numbered through:
 * (n_queries, n_heads). */
typedef struct QueryHeads {
    const AttentionQuery *queries;
    size_t n_queries, head, n_heads;
    size_t head_dim;   /* of queries and outputs */
    size_t row_dim;    /* of all between them */
    float score_scale; /* of q . k: log2(e) / score_divisor(), since weights are 2^(x log2(e)) for e^x */
    float score_cap;   /* of q . k, undivided; 0: none */
    RopePairing pairing;
    AttentionScratch *scratch;
} QueryHeads;

/* Heads from `head` on, as many as scratch memory holds. */
static inline QueryHeads query_heads(const AttentionShape *shape, const AttentionQuery *queries, size_t n_queries,
                                     size_t head, AttentionScratch *scratch) {
    return (QueryHeads){.queries = queries,
                        .n_queries = n_queries,
                        .head = head,
                        .n_heads = at_most(shape->q_per_kv - head, ATTENTION_Q_HEADS),
                        .head_dim = shape->head_dim,
                        .row_dim = row_dim_of(queries),
                        .score_scale = LOG2_E / score_divisor(shape),
                        .score_cap = shape->scores.cap * score_divisor(shape),
                        .pairing = shape->pairing,
                        .scratch = scratch};
}

/* Heads to rows, which are as long or longer: with zeros behind. */
static inline void copy_heads(const float *from, size_t n_heads, size_t head_dim, float *rows, size_t row_dim) {
    for (size_t h = 0; h < n_heads; h++, rows += row_dim) {
        memcpy(rows, from + h * head_dim, head_dim * sizeof *rows);
        memset(rows + head_dim, 0, (row_dim - head_dim) * sizeof *rows);
    }
}

/* Counts the tokens that a query sees, and makes the forms that its spans need. */
static inline void begin_query(const QueryHeads *heads, size_t index) {
    AttentionScratch *s = heads->scratch;
    const AttentionQuery *query = &heads->queries[index];
    size_t head_dim = heads->head_dim, row_dim = heads->row_dim, n_heads = heads->n_heads;
    size_t at = index * n_heads * row_dim, bytes = n_heads * row_dim * sizeof(float);
    const float *q = query->q + heads->head * head_dim;
    bool shifted = false, rotated = false;
    s->n_visible[index] = 0;
    s->n_hidden[index] = query->n_hidden;
    for (size_t i = 0; i < query->n_spans; i++) {
        shifted = shifted || query->spans[i].shifted;
        rotated = rotated || query->spans[i].side[KV_KEYS].group.rotated;
        s->n_visible[index] += query->spans[i].n_tokens;
    }
    const float *plain = s->forms[QUERY_PLAIN] + at;
    copy_heads(q, n_heads, head_dim, s->forms[QUERY_PLAIN] + at, row_dim);
    if (shifted) {
        memcpy(s->forms[QUERY_SHIFTED] + at, plain, bytes);
        for (size_t h = 0; h < n_heads; h++)
            rope_rotate(s->forms[QUERY_SHIFTED] + at + h * row_dim, head_dim, heads->pairing, query->shift_rotation);
    }
    if (rotated) {
        memcpy(s->forms[QUERY_ROTATED] + at, plain, bytes);
        kv_rotate(s->forms[QUERY_ROTATED] + at, n_heads, row_dim);
    }
}

static inline void begin_totals(const QueryHeads *heads, size_t index) {
    for (size_t i = index * heads->n_heads; i < (index + 1) * heads->n_heads; i++)
        partial_clear(partial_at(heads->scratch->totals, i, heads->row_dim), heads->row_dim);
}

/* Whether any of the values that a query sees are rotated. */
static inline bool sees_rotated(const AttentionQuery *query) {
    bool rotated = false;
    for (size_t i = 0; i < query->n_spans; i++)
        rotated = rotated || query->spans[i].side[KV_VALUES].group.rotated;
    return rotated;
}

/* Adds partials of a tile, made of what `query` sees, to the totals of n query heads from `first` on. */
static inline void merge_partials(const QueryHeads *heads, const AttentionQuery *query, size_t first, size_t n,
                                  float *partials) {
    size_t n_floats = sees_rotated(query) ? 2 * heads->row_dim : heads->row_dim;
    for (size_t i = 0; i < n; i++)
        partial_merge(partial_at(heads->scratch->totals, first + i, heads->row_dim),
                      partial_at(partials, i, heads->row_dim), heads->score_scale, n_floats);
}

static inline void finish_query(const QueryHeads *heads, size_t index) {
    const AttentionQuery *query = &heads->queries[index];
    bool rotated = sees_rotated(query);
    for (size_t h = 0; h < heads->n_heads; h++)
        partial_finish(partial_at(heads->scratch->totals, index * heads->n_heads + h, heads->row_dim), rotated,
                       heads->row_dim, heads->head_dim, query->out + (heads->head + h) * heads->head_dim);
}

/* The tile that begins at token `begin` of those that a query sees, cut by span. */
static inline Tile cut_tile(const AttentionQuery *query, size_t begin) {
    Tile tile = {.begin = begin};
    size_t at = 0; /* where a span begins */
    for (size_t s = 0; s < query->n_spans && at < begin + TILE_TOKENS; at += query->spans[s++].n_tokens) {
        const KvSpan *span = &query->spans[s];
        size_t first = at < begin ? begin - at : 0, end = at_most(span->n_tokens, begin + TILE_TOKENS - at);
        if (first < end)
            tile.pieces[tile.n_pieces++] = (TilePiece){span, first, at + first - begin, end - first};
    }
    return tile;
}

/* The form of the query heads that a span's keys are multiplied with. */
static inline const float *query_form(const AttentionScratch *scratch, const KvSpan *span) {
    int form = span->side[KV_KEYS].group.rotated ? QUERY_ROTATED : span->shifted ? QUERY_SHIFTED : QUERY_PLAIN;
    return scratch->forms[form];
}

/* How the callers read pieces whose codes are not multiplied: scores to scratch->scores, and weights from there. */
typedef void ScorePiece(const QueryHeads *heads, const TilePiece *piece, const float *q, size_t n);
typedef void AddPiece(const QueryHeads *heads, const TilePiece *piece, const size_t *n_seen, size_t n, float *out);

/* Of a tile's n tokens those at its beginning that are hidden, if n_hidden are of all. */
static inline size_t hidden_in(size_t n_hidden, size_t tile_begin, size_t n) {
    return n_hidden > tile_begin ? at_most(n_hidden - tile_begin, n) : 0;
}

/* A tile's scores become weights. What is hidden has none: its values are added as zeros, which changes no bit. */
static inline void weigh(const QueryHeads *heads, float *scores, size_t n, size_t n_hidden, Partial partial) {
    memset(scores, 0, n_hidden * sizeof *scores);
    if (n_hidden == n)
        return;
    if (heads->score_cap > 0)
        cap_scores(scores + n_hidden, n - n_hidden, heads->score_cap);
    tile_softmax(scores + n_hidden, n - n_hidden, heads->score_scale, partial);
}

/* A tile's partials of n query heads from `first` on. Each sees the tile's first token, but perhaps not all of them. */
INLINE void attend_tile(const QueryHeads *heads, const Tile *tile, size_t first, size_t n, ScorePiece *score,
                        AddPiece *add, float *partials) {
    AttentionScratch *s = heads->scratch;
    size_t row_dim = heads->row_dim, stride = PARTIAL_FLOATS(row_dim), n_seen[SCORE_HEADS];
    for (size_t p = 0; p < tile->n_pieces; p++) {
        const TilePiece *piece = &tile->pieces[p];
        const float *q = query_form(s, piece->span) + first * row_dim;
        if (is_coded(piece->span, KV_KEYS))
            SIMD_NAME(score_codes)(s->quantized, piece, q, n, s->scores);
        else
            score(heads, piece, q, n);
    }
    for (size_t i = 0; i < n; i++) {
        Partial partial = partial_at(partials, i, row_dim);
        size_t query = (first + i) / heads->n_heads;
        n_seen[i] = at_most(s->n_visible[query] - tile->begin, TILE_TOKENS);
        partial_clear(partial, row_dim);
        weigh(heads, s->scores[i], n_seen[i], hidden_in(s->n_hidden[query], tile->begin, n_seen[i]), partial);
    }
    for (size_t p = 0; p < tile->n_pieces; p++) {
        const TilePiece *piece = &tile->pieces[p];
        float *out = partials + (piece->span->side[KV_VALUES].group.rotated ? row_dim : 0);
        if (is_coded(piece->span, KV_VALUES))
            SIMD_NAME(add_codes)(s->quantized, piece, s->scores, n_seen, n, out, stride);
        else
            add(heads, piece, n_seen, n, out);
    }
}

#endif
