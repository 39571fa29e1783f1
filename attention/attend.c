/* Attention over spans of any codec, compiled once for each instruction set. Query heads of one KV head are processed
 * in blocks of up to four, so that a key or value is loaded, converted or decoded once for all of a block.
 *
 * Rotated codecs store H k and H v (H orthonormal): their scores need H q, and their part of the output is summed apart
 * and rotated back once, at the end. */
#include "attention/attend.h"

#include "model/base/simd.h"

#include <math.h>

#define TILE          512 /* tokens whose scores are held at once */
#define DECODE_TOKENS 16  /* encoded tokens that are decoded at once */
#define HEAD_BLOCK    4

#if VEC_LANES == 16
#define THIS_LEVEL SIMD_AVX512
#elif VEC_LANES == 8
#define THIS_LEVEL SIMD_AVX2
#else
#define THIS_LEVEL SIMD_SCALAR
#endif

#define INLINE static inline __attribute__((always_inline))

/* The query as the different spans need it. */
enum { QUERY_PLAIN, QUERY_SHIFTED, QUERY_ROTATED, N_QUERIES };

/* What a block of heads carries from tile to tile. */
typedef struct State {
    float queries[N_QUERIES][HEAD_BLOCK * ATTENTION_MAX_DIM];
    float rotated_out[HEAD_BLOCK * ATTENTION_MAX_DIM];
    float scores[HEAD_BLOCK][TILE];
    float decoded[DECODE_TOKENS * ATTENTION_MAX_DIM];
    float max[HEAD_BLOCK], sum[HEAD_BLOCK];
} State;

/* A position in the sequence of visible tokens. */
typedef struct Cursor {
    size_t span, token;
} Cursor;

/* Rows of a span come as FP16, straight from the cache, or as F32, just decoded. */
INLINE Vec load_row(const void *row, size_t d, bool half) {
    return half ? vec_load_half((const uint16_t *)row + d) : vec_load((const float *)row + d);
}

INLINE Vec load_row_partial(const void *row, size_t d, size_t n, bool half) {
    return half ? vec_load_half_partial((const uint16_t *)row + d, n) : vec_load_partial((const float *)row + d, n);
}

INLINE const void *row_at(const void *rows, size_t index, bool half) {
    return (const char *)rows + index * (half ? sizeof(uint16_t) : sizeof(float));
}

/* scores[h][t] = scale * q[h] . rows[t]. A head's dimension need not be a multiple of the lanes. */
INLINE void score_rows(const float *q, size_t n_heads, const void *rows, bool half, size_t n_tokens, size_t head_dim,
                       float scores[HEAD_BLOCK][TILE], size_t at) {
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t whole = head_dim / VEC_LANES * VEC_LANES, rest = head_dim - whole;
    for (size_t t = 0; t < n_tokens; t++) {
        const void *key = row_at(rows, t * head_dim, half);
        Vec sums[HEAD_BLOCK];
        for (size_t h = 0; h < n_heads; h++)
            sums[h] = vec_zero();
        for (size_t d = 0; d < whole; d += VEC_LANES) {
            Vec k = load_row(key, d, half);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_load(q + h * head_dim + d), k, sums[h]);
        }
        if (rest > 0) {
            Vec k = load_row_partial(key, whole, rest, half);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_load_partial(q + h * head_dim + whole, rest), k, sums[h]);
        }
        for (size_t h = 0; h < n_heads; h++)
            scores[h][at + t] = vec_sum(sums[h]) * scale;
    }
}

/* out[h] += sum over t of weights[h][at + t] * rows[t], one column of lanes at a time. */
INLINE void add_rows(float weights[HEAD_BLOCK][TILE], size_t at, size_t n_heads, const void *rows, bool half,
                     size_t n_tokens, size_t head_dim, float *out) {
    size_t whole = head_dim / VEC_LANES * VEC_LANES, rest = head_dim - whole;
    for (size_t d = 0; d < whole; d += VEC_LANES) {
        Vec sums[HEAD_BLOCK];
        for (size_t h = 0; h < n_heads; h++)
            sums[h] = vec_load(out + h * head_dim + d);
        for (size_t t = 0; t < n_tokens; t++) {
            Vec v = load_row(row_at(rows, t * head_dim, half), d, half);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_set1(weights[h][at + t]), v, sums[h]);
        }
        for (size_t h = 0; h < n_heads; h++)
            vec_store(out + h * head_dim + d, sums[h]);
    }
    for (size_t h = 0; h < n_heads && rest > 0; h++) {
        float *to = out + h * head_dim + whole;
        Vec sum = vec_load_partial(to, rest);
        for (size_t t = 0; t < n_tokens; t++)
            sum = vec_fma(vec_set1(weights[h][at + t]),
                          load_row_partial(row_at(rows, t * head_dim, half), whole, rest, half), sum);
        vec_store_partial(to, sum, rest);
    }
}

/* Tokens [first, first + n) of a span's keys or values, which lie in one group, decoded to F32. */
static const float *decode_tokens(const KvSpan *span, KvSide side, size_t first, size_t n, State *state) {
    const KvGroup *group = side == KV_KEYS ? &span->group_k : &span->group_v;
    const uint8_t *records = side == KV_KEYS ? span->keys : span->values;
    size_t bytes = side == KV_KEYS ? span->key_bytes : span->value_bytes;
    KvDecode *decode = kv_codec_decoder(side == KV_KEYS ? span->codec_k : span->codec_v, THIS_LEVEL);
    decode(side, group, records + first / group->n_tokens * bytes, first % group->n_tokens, n, state->decoded);
    return state->decoded;
}

/* How many tokens from `first` on are decoded together: up to the end of the piece and of DECODE_TOKENS. */
static size_t decode_count(size_t first, size_t end) {
    size_t to_step_end = DECODE_TOKENS - first % DECODE_TOKENS; /* a group is a multiple of it */
    return end - first < to_step_end ? end - first : to_step_end;
}

INLINE void score_span(const KvSpan *span, size_t first, size_t end, size_t n_heads, size_t head_dim, size_t at,
                       State *state) {
    int form = span->group_k.rotated ? QUERY_ROTATED : span->shifted ? QUERY_SHIFTED : QUERY_PLAIN;
    const float *q = state->queries[form];
    if (kv_codec_id(span->codec_k) == KV_F16) {
        const void *rows = span->keys + first * head_dim * sizeof(uint16_t);
        score_rows(q, n_heads, rows, true, end - first, head_dim, state->scores, at);
        return;
    }
    for (size_t n; first < end; first += n, at += n) {
        n = decode_count(first, end);
        const float *rows = decode_tokens(span, KV_KEYS, first, n, state);
        score_rows(q, n_heads, rows, false, n, head_dim, state->scores, at);
    }
}

INLINE void add_span(const KvSpan *span, size_t first, size_t end, size_t n_heads, size_t head_dim, size_t at,
                     State *state, float *out) {
    if (kv_codec_id(span->codec_v) == KV_F16) {
        const void *rows = span->values + first * head_dim * sizeof(uint16_t);
        add_rows(state->scores, at, n_heads, rows, true, end - first, head_dim, out);
        return;
    }
    float *to = span->group_v.rotated ? state->rotated_out : out;
    for (size_t n; first < end; first += n, at += n) {
        n = decode_count(first, end);
        const float *rows = decode_tokens(span, KV_VALUES, first, n, state);
        add_rows(state->scores, at, n_heads, rows, false, n, head_dim, to);
    }
}

static void scale_row(float *row, size_t n, float factor) {
    for (size_t i = 0; i < n; i++)
        row[i] *= factor;
}

/* Turns a tile's scores of one head into weights relative to the running maximum, and rescales what was accumulated
 * under the former maximum. */
static void tile_softmax(State *state, size_t head, size_t n_tokens, float *out, size_t head_dim) {
    float *scores = state->scores[head], max = state->max[head];
    for (size_t t = 0; t < n_tokens; t++)
        max = scores[t] > max ? scores[t] : max;
    if (max > state->max[head]) {
        float rescale = expf(state->max[head] - max); /* 0 for the first tile */
        state->sum[head] *= rescale;
        scale_row(out + head * head_dim, head_dim, rescale);
        scale_row(state->rotated_out + head * head_dim, head_dim, rescale);
        state->max[head] = max;
    }
    Vec negative_max = vec_set1(-max), sum = vec_zero();
    size_t t = 0;
    for (; t + VEC_LANES <= n_tokens; t += VEC_LANES) {
        Vec weights = vec_exp(vec_add(vec_load(scores + t), negative_max));
        vec_store(scores + t, weights);
        sum = vec_add(sum, weights);
    }
    float rest = 0;
    for (; t < n_tokens; t++) {
        float weight[VEC_LANES];
        vec_store(weight, vec_exp(vec_set1(scores[t] - max)));
        scores[t] = weight[0];
        rest += weight[0];
    }
    state->sum[head] += vec_sum(sum) + rest;
}

/* One tile of visible tokens from `cursor` on: scores, softmax, sums; the cursor moves behind it. */
INLINE void attend_tile(const KvSpan *spans, size_t n_spans, Cursor *cursor, size_t n_heads, size_t head_dim,
                        State *state, float *out) {
    Cursor start = *cursor;
    size_t n = 0;
    while (n < TILE && cursor->span < n_spans) {
        const KvSpan *span = &spans[cursor->span];
        size_t left = span->n_tokens - cursor->token, count = left < TILE - n ? left : TILE - n;
        score_span(span, cursor->token, cursor->token + count, n_heads, head_dim, n, state);
        n += count;
        *cursor = count == left ? (Cursor){cursor->span + 1, 0} : (Cursor){cursor->span, cursor->token + count};
    }
    for (size_t h = 0; h < n_heads; h++)
        tile_softmax(state, h, n, out, head_dim);
    for (size_t done = 0; done < n; start = (Cursor){start.span + 1, 0}) {
        const KvSpan *span = &spans[start.span];
        size_t left = span->n_tokens - start.token, count = left < n - done ? left : n - done;
        add_span(span, start.token, start.token + count, n_heads, head_dim, done, state, out);
        done += count;
    }
}

/* The forms of the query that the spans ask for. */
static void prepare_queries(const KvSpan *spans, size_t n_spans, const AttentionQuery *query, size_t head,
                            size_t n_heads, State *state) {
    size_t dim = query->head_dim, bytes = n_heads * dim * sizeof(float);
    const float *q = query->q + head * dim;
    bool shifted = false, rotated = false;
    for (size_t s = 0; s < n_spans; s++) {
        shifted = shifted || spans[s].shifted;
        rotated = rotated || spans[s].group_k.rotated;
    }
    memcpy(state->queries[QUERY_PLAIN], q, bytes);
    if (shifted) {
        memcpy(state->queries[QUERY_SHIFTED], q, bytes);
        for (size_t h = 0; h < n_heads; h++)
            rope_rotate(state->queries[QUERY_SHIFTED] + h * dim, dim, query->pairing, query->shift_rotation);
    }
    if (rotated) {
        memcpy(state->queries[QUERY_ROTATED], q, bytes);
        kv_rotate(state->queries[QUERY_ROTATED], n_heads, dim);
    }
}

/* Normalises by the sums and takes in what rotated values have added. */
static void finish(const KvSpan *spans, size_t n_spans, size_t n_heads, size_t head_dim, State *state, float *out) {
    bool rotated = false;
    for (size_t s = 0; s < n_spans; s++)
        rotated = rotated || spans[s].group_v.rotated;
    if (rotated) {
        kv_rotate(state->rotated_out, n_heads, head_dim);
        for (size_t i = 0; i < n_heads * head_dim; i++)
            out[i] += state->rotated_out[i];
    }
    for (size_t h = 0; h < n_heads; h++)
        for (size_t d = 0; d < head_dim; d++)
            out[h * head_dim + d] /= state->sum[h];
}

/* A constant n_heads lets the compiler keep a block's sums in registers. */
INLINE void attend_heads(const KvSpan *spans, size_t n_spans, const AttentionQuery *query, size_t head, size_t n_heads,
                         State *state, float *out) {
    size_t head_dim = query->head_dim;
    for (size_t h = 0; h < n_heads; h++) {
        state->max[h] = -INFINITY;
        state->sum[h] = 0;
    }
    memset(out, 0, n_heads * head_dim * sizeof *out);
    memset(state->rotated_out, 0, n_heads * head_dim * sizeof *out);
    prepare_queries(spans, n_spans, query, head, n_heads, state);
    for (Cursor cursor = {0, 0}; cursor.span < n_spans;)
        attend_tile(spans, n_spans, &cursor, n_heads, head_dim, state, out);
    finish(spans, n_spans, n_heads, head_dim, state, out);
}

void SIMD_NAME(attend)(const KvSpan *spans, size_t n_spans, const AttentionQuery *query, float *out) {
    State state;
    for (size_t h = 0; h < query->n_group;) {
        float *to = out + h * query->head_dim;
        switch (query->n_group - h) {
        case 1:
            attend_heads(spans, n_spans, query, h, 1, &state, to);
            h += 1;
            break;
        case 2:
            attend_heads(spans, n_spans, query, h, 2, &state, to);
            h += 2;
            break;
        case 3:
            attend_heads(spans, n_spans, query, h, 3, &state, to);
            h += 3;
            break;
        default:
            attend_heads(spans, n_spans, query, h, HEAD_BLOCK, &state, to);
            h += HEAD_BLOCK;
            break;
        }
    }
}
