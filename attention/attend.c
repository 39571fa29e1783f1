/* Attention over FP16 spans, compiled once for each instruction set. Query heads of one KV head are processed in blocks
 * of up to four, so that a key or value is loaded and converted once for all of a block. */
#include "attention/attend.h"

#include "model/base/simd.h"

#include <math.h>

#define TILE       64 /* tokens whose scores are held at once */
#define HEAD_BLOCK 4

/* The running softmax of a block of heads. */
typedef struct State {
    float max[HEAD_BLOCK], sum[HEAD_BLOCK];
} State;

#define INLINE static inline __attribute__((always_inline))

/* scores[h][t] = scale * q[h] . keys[t]. A head's dimension need not be a multiple of the lanes. */
INLINE void tile_scores(const float *q, size_t n_heads, const uint16_t *keys, size_t n_tokens, size_t head_dim,
                        float scores[HEAD_BLOCK][TILE]) {
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t whole = head_dim / VEC_LANES * VEC_LANES, rest = head_dim - whole;
    for (size_t t = 0; t < n_tokens; t++) {
        const uint16_t *key = keys + t * head_dim;
        Vec sums[HEAD_BLOCK];
        for (size_t h = 0; h < n_heads; h++)
            sums[h] = vec_zero();
        for (size_t d = 0; d < whole; d += VEC_LANES) {
            Vec k = vec_load_half(key + d);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_load(q + h * head_dim + d), k, sums[h]);
        }
        if (rest > 0) {
            Vec k = vec_load_half_partial(key + whole, rest);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_load_partial(q + h * head_dim + whole, rest), k, sums[h]);
        }
        for (size_t h = 0; h < n_heads; h++)
            scores[h][t] = vec_sum(sums[h]) * scale;
    }
}

/* out[h] += sum over t of weights[h][t] * values[t], one column of lanes at a time. */
INLINE void tile_accumulate(float weights[HEAD_BLOCK][TILE], size_t n_heads, const uint16_t *values,
                            size_t n_tokens, size_t head_dim, float *out) {
    size_t whole = head_dim / VEC_LANES * VEC_LANES, rest = head_dim - whole;
    for (size_t d = 0; d < whole; d += VEC_LANES) {
        Vec sums[HEAD_BLOCK];
        for (size_t h = 0; h < n_heads; h++)
            sums[h] = vec_load(out + h * head_dim + d);
        for (size_t t = 0; t < n_tokens; t++) {
            Vec v = vec_load_half(values + t * head_dim + d);
            for (size_t h = 0; h < n_heads; h++)
                sums[h] = vec_fma(vec_set1(weights[h][t]), v, sums[h]);
        }
        for (size_t h = 0; h < n_heads; h++)
            vec_store(out + h * head_dim + d, sums[h]);
    }
    for (size_t h = 0; h < n_heads && rest > 0; h++) {
        float *to = out + h * head_dim + whole;
        Vec sum = vec_load_partial(to, rest);
        for (size_t t = 0; t < n_tokens; t++)
            sum = vec_fma(vec_set1(weights[h][t]), vec_load_half_partial(values + t * head_dim + whole, rest), sum);
        vec_store_partial(to, sum, rest);
    }
}

/* Turns a tile's scores of one head into weights relative to the running maximum, and rescales what was accumulated
 * under the former maximum. */
static void tile_softmax(float *scores, size_t n_tokens, float *running_max, float *running_sum, float *out,
                         size_t head_dim) {
    float max = *running_max;
    for (size_t t = 0; t < n_tokens; t++)
        max = scores[t] > max ? scores[t] : max;
    if (max > *running_max) {
        float rescale = expf(*running_max - max); /* 0 for the first tile */
        *running_sum *= rescale;
        for (size_t d = 0; d < head_dim; d++)
            out[d] *= rescale;
        *running_max = max;
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
    *running_sum += vec_sum(sum) + rest;
}

/* A constant n_heads lets the compiler keep a block's sums in registers. */
INLINE void attend_heads(const KvSpan *spans, size_t n_spans, const float *q, size_t n_heads, size_t head_dim,
                         float *out) {
    float scores[HEAD_BLOCK][TILE];
    State state;
    for (size_t h = 0; h < n_heads; h++) {
        state.max[h] = -INFINITY;
        state.sum[h] = 0;
    }
    memset(out, 0, n_heads * head_dim * sizeof *out);
    for (size_t s = 0; s < n_spans; s++)
        for (size_t first = 0; first < spans[s].n_tokens; first += TILE) {
            size_t n_tokens = spans[s].n_tokens - first < TILE ? spans[s].n_tokens - first : TILE;
            tile_scores(q, n_heads, spans[s].keys + first * head_dim, n_tokens, head_dim, scores);
            for (size_t h = 0; h < n_heads; h++)
                tile_softmax(scores[h], n_tokens, &state.max[h], &state.sum[h], out + h * head_dim, head_dim);
            tile_accumulate(scores, n_heads, spans[s].values + first * head_dim, n_tokens, head_dim, out);
        }
    for (size_t h = 0; h < n_heads; h++)
        for (size_t d = 0; d < head_dim; d++)
            out[h * head_dim + d] /= state.sum[h];
}

void SIMD_NAME(attend)(const KvSpan *spans, size_t n_spans, const float *q, size_t n_group, size_t head_dim,
                       float *out) {
    size_t h = 0;
    for (; h + 4 <= n_group; h += 4)
        attend_heads(spans, n_spans, q + h * head_dim, 4, head_dim, out + h * head_dim);
    switch (n_group - h) {
    case 3:
        attend_heads(spans, n_spans, q + h * head_dim, 3, head_dim, out + h * head_dim);
        break;
    case 2:
        attend_heads(spans, n_spans, q + h * head_dim, 2, head_dim, out + h * head_dim);
        break;
    case 1:
        attend_heads(spans, n_spans, q + h * head_dim, 1, head_dim, out + h * head_dim);
        break;
    default:
        break;
    }
}
