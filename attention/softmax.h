/* The online softmax: a tile's scores become weights relative to the tile's own maximum, and tiles' partials are put
 * together in order, so that they may be made by different threads. To be included by sources of
 * stowkv_simd_library() only. */
#ifndef STOWKV_SOFTMAX_H
#define STOWKV_SOFTMAX_H

#include "attention/partial.h"
#include "base/simd/vectors.h"
#include "kvcache/codec/codec.h"

#include <math.h>
#include <string.h>

/* The largest score, or -infinity; NaN is passed over. */
static inline float largest(const float *scores, size_t n) {
    Vec most[4]; /* so that a comparison need not wait for the one before */
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

/* score = cap * tanh(score / cap), by tanh(x) = 1 - 2 / (1 + e^(2 x)). */
static inline void cap_scores(float *scores, size_t n, float cap) {
    Vec one = vec_set1(1.0f), two = vec_set1(2.0f), most = vec_set1(88.0f), to_x = vec_set1(2.0f / cap);
    for (size_t t = 0; t < n; t += VEC_LANES) {
        size_t rest = n - t < VEC_LANES ? n - t : VEC_LANES;
        Vec e = vec_exp(vec_min(most, vec_mul(to_x, vec_load_partial(scores + t, rest))));
        Vec tanh = vec_sub(one, vec_div(two, vec_add(one, e)));
        vec_store_partial(scores + t, vec_mul(vec_set1(cap), tanh), rest);
    }
}

/* Scores become weights, 2^((score - max) * score_scale), and the partial takes their maximum and sum. */
static inline void tile_softmax(float *scores, size_t n_tokens, float score_scale, Partial tile) {
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

static inline void partial_clear(Partial partial, size_t row_dim) {
    memset(partial.out, 0, 2 * row_dim * sizeof *partial.out);
    *partial.max = -INFINITY;
    *partial.sum = 0;
}

/* to = to * a + from * b */
static inline void mix(float *to, float a, const float *from, float b, size_t n) {
    size_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(to + i, vec_fma(vec_load(from + i), vec_set1(b), vec_mul(vec_load(to + i), vec_set1(a))));
    if (i < n)
        vec_store_partial(to + i,
                          vec_fma(vec_load_partial(from + i, n - i), vec_set1(b),
                                  vec_mul(vec_load_partial(to + i, n - i), vec_set1(a))),
                          n - i);
}

/* Adds the next tile to those before it: both become relative to the larger maximum. n_floats: of `out` alone, or of
 * `rotated` too. */
static inline void partial_merge(Partial total, Partial tile, float score_scale, size_t n_floats) {
    if (*tile.sum == 0) /* all of it is hidden */
        return;
    bool rises = *tile.max > *total.max;
    float difference = rises ? *total.max - *tile.max : *tile.max - *total.max;
    float factor = exp2f(difference * score_scale); /* 0 for the first tile */
    float a = rises ? factor : 1.0f, b = rises ? 1.0f : factor;
    *total.max = rises ? *tile.max : *total.max;
    *total.sum = *total.sum * a + *tile.sum * b;
    mix(total.out, a, tile.out, b, n_floats);
}

/* The output: the sums, those of rotated values rotated back, divided by the sum of the weights: as far as the head
 * goes. */
static inline void partial_finish(Partial total, bool rotated, size_t row_dim, size_t head_dim, float *out) {
    if (rotated) {
        kv_rotate(total.rotated, 1, row_dim);
        for (size_t d = 0; d < head_dim; d++)
            total.out[d] += total.rotated[d];
    }
    for (size_t d = 0; d < head_dim; d++)
        out[d] = total.out[d] / *total.sum;
}

#endif
