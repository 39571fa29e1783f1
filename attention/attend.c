/* Attention of a block of queries over spans of any codec, compiled once for each instruction set. A row is one head of
 * one query. Each row's tiles are attended to one by one, each relative to its own maximum, and put together in order
 * (the online softmax), so that they may be spread over threads. In a block, tiles are the outer loop, so that a
 * decoded tile serves all rows that see it.
 *
 * Rotated codecs store H k and H v (H orthonormal): their scores need H q, and their part of the output is summed apart
 * and rotated back once, at the end. */
#include "attention/attend.h"

#include "attention/row_kernels.h"
#include "attention/stored_kernels.h"

#define PANEL_TOKENS (PANEL_BLOCK * VEC_LANES)
#define CHUNK_BYTES  16384 /* of values that meet all rows before the next: half of a nearest cache */

/* Some heads of all queries of a call: rows (n_queries, n_heads). */
typedef struct Block {
    const AttentionQuery *queries;
    size_t n_queries, head, n_heads, head_dim;
    float score_scale; /* of q . k, in powers of two: log2(e) / sqrt(head_dim), since e^x is 2^(x log2(e)) */
    RopePairing pairing;
    AttentionScratch *scratch;
} Block;

/* The tokens of a tile that a query sees, by span. Returns how many pieces. */
static size_t cut_tile(const AttentionQuery *query, size_t tile, TilePiece pieces[KV_MAX_SPANS]) {
    size_t n_pieces = 0, begin = 0; /* of the span, among the visible tokens */
    for (size_t s = 0; s < query->n_spans && begin < tile + TILE_TOKENS; begin += query->spans[s++].n_tokens) {
        const KvSpan *span = &query->spans[s];
        size_t first = begin < tile ? tile - begin : 0, end = at_most(span->n_tokens, tile + TILE_TOKENS - begin);
        if (first < end)
            pieces[n_pieces++] = (TilePiece){span, first, begin + first - tile, end - first};
    }
    return n_pieces;
}

/* The form of the rows that a span is scored with. */
static const float *query_form(const AttentionScratch *scratch, const KvSpan *span) {
    int form = span->side[KV_KEYS].group.rotated ? QUERY_ROTATED : span->shifted ? QUERY_SHIFTED : QUERY_PLAIN;
    return scratch->forms[form];
}

/* Scores of the decoded tokens [at, at + n), and of whatever shares panels with the last of them. */
static void score_decoded(const DecodedTile *tile, size_t at, size_t n, const float *q, size_t n_rows, size_t head_dim,
                          float (*scores)[SCORE_STRIDE]) {
    float kept[SCORE_ROWS][PANEL_TOKENS]; /* scores with the span before, whose last tokens share the first panels */
    size_t begin = at / PANEL_TOKENS * PANEL_TOKENS, n_kept = at - begin;
    for (size_t r = 0; r < n_rows; r++)
        memcpy(kept[r], scores[r] + begin, n_kept * sizeof **kept);
    for (size_t t = begin; t < at + n; t += PANEL_TOKENS)
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK)
            WITH_ROWS(row_block(n_rows - r), score_panels, q + r * head_dim, tile->panels + t * head_dim, head_dim,
                      scores[r] + t, SCORE_STRIDE);
    for (size_t r = 0; r < n_rows; r++)
        memcpy(scores[r] + begin, kept[r], n_kept * sizeof **kept);
}

/* Adds the decoded tokens [at, at + n) to the rows, each as far as it sees. Later rows see as much as earlier ones, or
 * more. */
static void add_decoded(const DecodedTile *tile, size_t at, size_t n, float (*weights)[SCORE_STRIDE],
                        const size_t *n_seen, size_t n_rows, size_t head_dim, float *out, size_t stride) {
    size_t chunk = CHUNK_BYTES / (head_dim * sizeof(float));
    for (size_t begin = at, end; begin < at + n; begin = end) {
        end = at_most(begin + chunk, at + n);
        StoredRows values = decoded_rows(tile->values + begin * head_dim, head_dim);
        for (size_t r = 0; r < n_rows; r += ROW_BLOCK) {
            size_t shared = at_most(end, n_seen[r]), n_block = row_block(n_rows - r);
            if (shared > begin)
                WITH_ROWS(n_block, add_rows, ROW_FLOAT, weights[r] + begin, SCORE_STRIDE, &values, shared - begin,
                          head_dim, out + r * stride, stride);
            size_t rest = shared > begin ? shared : begin;
            StoredRows last = decoded_rows(tile->values + rest * head_dim, head_dim);
            for (size_t i = r; i < r + n_block; i++)
                if (at_most(end, n_seen[i]) > rest)
                    add_rows(1, ROW_FLOAT, weights[i] + rest, SCORE_STRIDE, &last, at_most(end, n_seen[i]) - rest,
                             head_dim, out + i * stride, stride);
        }
    }
}

/* The largest score, or -infinity; NaN is passed over. */
static float largest(const float *scores, size_t n) {
    Vec most[4]; /* or each would wait for the one before */
    size_t t = 0;
    for (size_t i = 0; i < 4; i++)
        most[i] = vec_set1(-INFINITY);
    for (; t + 4 * VEC_LANES <= n; t += 4 * VEC_LANES)
        for (size_t i = 0; i < 4; i++)
            most[i] = vec_max(vec_load(scores + t + i * VEC_LANES), most[i]);
    for (; t + VEC_LANES <= n; t += VEC_LANES)
        most[0] = vec_max(vec_load(scores + t), most[0]);
    float max = vec_largest(vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3])));
    for (; t < n; t++)
        max = scores[t] > max ? scores[t] : max;
    return max;
}

/* Turns a tile's products of one row into weights relative to their maximum, whose own is 1. */
static void tile_softmax(float *scores, size_t n_tokens, float score_scale, Partial tile) {
    float max = largest(scores, n_tokens), rest = 0;
    Vec scale = vec_set1(score_scale), most = vec_set1(max), sum = vec_zero();
    size_t t = 0;
    for (; t + VEC_LANES <= n_tokens; t += VEC_LANES) {
        Vec weights = vec_exp2(vec_mul(vec_sub(vec_load(scores + t), most), scale));
        vec_store(scores + t, weights);
        sum = vec_add(sum, weights);
    }
    if (t < n_tokens) {
        Vec last = vec_sub(vec_load_partial(scores + t, n_tokens - t), most);
        vec_store_partial(scores + t, vec_exp2(vec_mul(last, scale)), n_tokens - t);
    }
    for (; t < n_tokens; t++)
        rest += scores[t];
    *tile.max = max;
    *tile.sum = vec_sum(sum) + rest;
}

/* What a tile's pieces give rows [first, first + n_rows) of queries that see alike. */
static void attend_rows(const Block *block, const TilePiece *pieces, size_t n_pieces, size_t first, size_t n_rows,
                        size_t tile, float *partials) {
    AttentionScratch *s = block->scratch;
    bool alone = block->n_queries == 1;
    size_t head_dim = block->head_dim, stride = PARTIAL_FLOATS(head_dim), n_seen[SCORE_ROWS];
    for (size_t p = 0; p < n_pieces; p++) {
        const KvSpan *span = pieces[p].span;
        const float *q = query_form(s, span) + first * head_dim;
        size_t at = pieces[p].at, n = pieces[p].n;
        if (is_coded(span, KV_KEYS))
            SIMD_NAME(score_codes)(s->numbers, &pieces[p], q, n_rows, s->scores);
        else if (alone)
            SIMD_NAME(score_stored)(span, pieces[p].first, n, q, n_rows, s->scores[0] + at, SCORE_STRIDE);
        else
            score_decoded(&s->tile, at, n, q, n_rows, head_dim, s->scores);
    }
    for (size_t r = 0; r < n_rows; r++) {
        Partial partial = partial_at(partials, r, head_dim);
        memset(partial.out, 0, 2 * head_dim * sizeof *partial.out);
        n_seen[r] = at_most(s->n_visible[(first + r) / block->n_heads] - tile, TILE_TOKENS);
        tile_softmax(s->scores[r], n_seen[r], block->score_scale, partial);
    }
    for (size_t p = 0; p < n_pieces; p++) {
        const KvSpan *span = pieces[p].span;
        float *out = partials + (span->side[KV_VALUES].group.rotated ? head_dim : 0);
        size_t at = pieces[p].at, n = pieces[p].n;
        if (is_coded(span, KV_VALUES))
            SIMD_NAME(add_codes)(s->numbers, &pieces[p], s->scores, n_seen, n_rows, out, stride);
        else if (alone)
            SIMD_NAME(add_stored)(span, pieces[p].first, n, s->scores[0] + at, SCORE_STRIDE, n_rows, out, stride);
        else
            add_decoded(&s->tile, at, n, s->scores, n_seen, n_rows, head_dim, out, stride);
    }
}

/* to = to * a + from * b */
static void mix_rows(float *to, float a, const float *from, float b, size_t n) {
    size_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(to + i, vec_fma(vec_load(from + i), vec_set1(b), vec_mul(vec_load(to + i), vec_set1(a))));
    if (i < n)
        vec_store_partial(to + i,
                          vec_fma(vec_load_partial(from + i, n - i), vec_set1(b),
                                  vec_mul(vec_load_partial(to + i, n - i), vec_set1(a))),
                          n - i);
}

/* Puts a row's next tile behind those before it: both become relative to the larger maximum. */
static void merge_tile(const Block *block, Partial total, Partial tile, bool rotated) {
    bool rises = *tile.max > *total.max;
    float difference = rises ? *total.max - *tile.max : *tile.max - *total.max;
    float factor = exp2f(difference * block->score_scale); /* 0 for the first tile */
    float a = rises ? factor : 1.0f, b = rises ? 1.0f : factor;
    *total.max = rises ? *tile.max : *total.max;
    *total.sum = *total.sum * a + *tile.sum * b;
    mix_rows(total.out, a, tile.out, b, rotated ? 2 * block->head_dim : block->head_dim);
}

/* Whether any of its values are rotated. */
static bool sums_rotated(const AttentionQuery *query) {
    bool rotated = false;
    for (size_t i = 0; i < query->n_spans; i++)
        rotated = rotated || query->spans[i].side[KV_VALUES].group.rotated;
    return rotated;
}

/* Whether `later` sees what `query` sees, and perhaps more tokens behind it. */
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

/* A tile and rows [first, end) of queries that see alike. */
static void attend_run(const Block *block, const TilePiece *pieces, size_t n_pieces, size_t first, size_t end,
                       size_t tile, bool rotated) {
    AttentionScratch *s = block->scratch;
    for (size_t row = first, n; row < end; row += n) {
        n = at_most(end - row, SCORE_ROWS);
        attend_rows(block, pieces, n_pieces, row, n, tile, s->tiles);
        for (size_t r = 0; r < n; r++)
            merge_tile(block, partial_at(s->totals, row + r, block->head_dim), partial_at(s->tiles, r, block->head_dim),
                       rotated);
    }
}

/* A tile and all queries, in runs of those that see alike. */
static void attend_tile(const Block *block, size_t tile) {
    AttentionScratch *s = block->scratch;
    decoded_tile_clear(&s->tile);
    for (size_t begin = 0, end; begin < block->n_queries; begin = end) {
        const AttentionQuery *queries = block->queries;
        for (end = begin + 1; end < block->n_queries && sees_alike(&queries[end - 1], &queries[end]);)
            end++;
        TilePiece pieces[KV_MAX_SPANS];
        size_t n_pieces = cut_tile(&queries[end - 1], tile, pieces), first = begin;
        if (n_pieces == 0)
            continue;
        while (s->n_visible[first] <= tile)
            first++;
        if (block->n_queries > 1)
            SIMD_NAME(decode_tile)(&s->tile, pieces, n_pieces, block->head_dim);
        attend_run(block, pieces, n_pieces, first * block->n_heads, end * block->n_heads, tile,
                   sums_rotated(&queries[end - 1]));
    }
}

/* Makes the forms of a query that its spans ask for. */
static void begin_query(const Block *block, size_t index) {
    AttentionScratch *s = block->scratch;
    const AttentionQuery *query = &block->queries[index];
    size_t head_dim = block->head_dim, n_heads = block->n_heads, at = index * n_heads * head_dim;
    size_t bytes = n_heads * head_dim * sizeof(float);
    const float *q = query->q + block->head * head_dim;
    bool shifted = false, rotated = false;
    s->n_visible[index] = 0;
    for (size_t i = 0; i < query->n_spans; i++) {
        shifted = shifted || query->spans[i].shifted;
        rotated = rotated || query->spans[i].side[KV_KEYS].group.rotated;
        s->n_visible[index] += query->spans[i].n_tokens;
    }
    memcpy(s->forms[QUERY_PLAIN] + at, q, bytes);
    if (shifted) {
        memcpy(s->forms[QUERY_SHIFTED] + at, q, bytes);
        for (size_t h = 0; h < n_heads; h++)
            rope_rotate(s->forms[QUERY_SHIFTED] + at + h * head_dim, head_dim, block->pairing, query->shift_rotation);
    }
    if (rotated) {
        memcpy(s->forms[QUERY_ROTATED] + at, q, bytes);
        kv_rotate(s->forms[QUERY_ROTATED] + at, n_heads, head_dim);
    }
}

static void begin_totals(const Block *block, size_t index) {
    for (size_t r = index * block->n_heads; r < (index + 1) * block->n_heads; r++) {
        Partial total = partial_at(block->scratch->totals, r, block->head_dim);
        memset(total.out, 0, 2 * block->head_dim * sizeof *total.out);
        *total.max = -INFINITY;
        *total.sum = 0;
    }
}

/* Takes in what rotated values have added, and normalises by the sums. */
static void finish_query(const Block *block, size_t index) {
    const AttentionQuery *query = &block->queries[index];
    size_t head_dim = block->head_dim;
    bool rotated = sums_rotated(query);
    for (size_t h = 0; h < block->n_heads; h++) {
        Partial total = partial_at(block->scratch->totals, index * block->n_heads + h, head_dim);
        float *out = query->out + (block->head + h) * head_dim;
        if (rotated) {
            kv_rotate(total.rotated, 1, head_dim);
            for (size_t d = 0; d < head_dim; d++)
                total.out[d] += total.rotated[d];
        }
        for (size_t d = 0; d < head_dim; d++)
            out[d] = total.out[d] / *total.sum;
    }
}

/* Heads from `head` on, as many as there is room for. */
static Block block_of(const AttentionShape *shape, const AttentionQuery *queries, size_t n_queries, size_t head,
                      AttentionScratch *scratch) {
    size_t n_heads = at_most(shape->n_group - head, ATTENTION_ROWS);
    return (Block){.queries = queries,
                   .n_queries = n_queries,
                   .head = head,
                   .n_heads = n_heads,
                   .head_dim = shape->head_dim,
                   .score_scale = LOG2_E / sqrtf((float)shape->head_dim),
                   .pairing = shape->pairing,
                   .scratch = scratch};
}

static void attend(const AttentionShape *shape, const AttentionQuery *queries, size_t n_queries,
                   AttentionScratch *scratch) {
    for (size_t head = 0; head < shape->n_group; head += ATTENTION_ROWS) {
        Block block = block_of(shape, queries, n_queries, head, scratch);
        size_t longest = 0;
        for (size_t i = 0; i < n_queries; i++) {
            begin_query(&block, i);
            begin_totals(&block, i);
            longest = scratch->n_visible[i] > longest ? scratch->n_visible[i] : longest;
        }
        for (size_t tile = 0; tile < longest; tile += TILE_TOKENS)
            attend_tile(&block, tile);
        for (size_t i = 0; i < n_queries; i++)
            finish_query(&block, i);
    }
}

static void attend_tiles(const AttentionShape *shape, const AttentionQuery *query, size_t begin, size_t end,
                         float *partials, size_t stride, AttentionScratch *scratch) {
    size_t row_floats = PARTIAL_FLOATS(shape->head_dim);
    for (size_t head = 0; head < shape->n_group; head += ATTENTION_ROWS) {
        Block block = block_of(shape, query, 1, head, scratch);
        begin_query(&block, 0);
        for (size_t tile = begin; tile < end; tile++) {
            TilePiece pieces[KV_MAX_SPANS];
            size_t n_pieces = cut_tile(query, tile * TILE_TOKENS, pieces);
            float *rows = partials + tile * stride + head * row_floats;
            for (size_t r = 0; r < block.n_heads; r += SCORE_ROWS)
                attend_rows(&block, pieces, n_pieces, r, at_most(block.n_heads - r, SCORE_ROWS), tile * TILE_TOKENS,
                            rows + r * row_floats);
        }
    }
}

static void merge(const AttentionShape *shape, const AttentionQuery *query, size_t n_tiles, float *partials,
                  size_t stride, AttentionScratch *scratch) {
    bool rotated = sums_rotated(query);
    for (size_t head = 0; head < shape->n_group; head += ATTENTION_ROWS) {
        Block block = block_of(shape, query, 1, head, scratch);
        begin_totals(&block, 0);
        for (size_t tile = 0; tile < n_tiles; tile++)
            for (size_t h = 0; h < block.n_heads; h++)
                merge_tile(&block, partial_at(scratch->totals, h, shape->head_dim),
                           partial_at(partials + tile * stride, head + h, shape->head_dim), rotated);
        finish_query(&block, 0);
    }
}

const AttentionKernels SIMD_NAME(attention_kernels) = {attend, attend_tiles, merge};
