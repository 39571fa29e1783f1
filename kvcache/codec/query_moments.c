/* See query_moments.h; the loops over tiles and rows are in moments.c. */
#include "kvcache/codec/query_moments.h"

#include "kvcache/codec/codec.h"
#include "kvcache/codec/moments.h"

#include <math.h>
#include <string.h>

#define TILE KV_MOMENTS_TILE

/* Of the mean of H's diagonal, added to all of it: keeps the factor tame where queries leave directions out. */
#define DAMPING 0.1f

void kv_moments_settle(const KvMoments *moments) {
    static KvMomentsAdd *const ADD[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_moments_add_rows);
    ADD[moments->level](moments->sums, kv_moments_row(moments->head_dim) / TILE, moments->waiting, *moments->n_waiting);
    *moments->n_waiting = 0;
}

void kv_moments_take(const KvMoments *moments, size_t n_heads, size_t n_tokens, size_t stride, const float *queries) {
    size_t head_dim = moments->head_dim, row = kv_moments_row(head_dim);
    for (size_t i = 0; i < n_tokens * n_heads; i++) {
        float *to = moments->waiting + *moments->n_waiting * row;
        memcpy(to, queries + i / n_heads * stride + i % n_heads * head_dim, head_dim * sizeof *to);
        memset(to + head_dim, 0, (row - head_dim) * sizeof *to);
        if (++*moments->n_waiting == KV_MOMENTS_WAITING)
            kv_moments_settle(moments);
    }
}

void kv_moments_fade(const KvMoments *moments, float factor) {
    kv_moments_settle(moments);
    for (size_t i = 0; i < kv_moments_floats(moments->head_dim); i++)
        moments->sums[i] *= factor;
}

static float moment(const float *moments, size_t i, size_t j) { /* j <= i */
    const float *tile = moments + (i / TILE * (i / TILE + 1) / 2 + j / TILE) * TILE * TILE;
    return tile[i % TILE * TILE + j % TILE];
}

static void transpose(float *square, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            float x = square[i * n + j];
            square[i * n + j] = square[j * n + i];
            square[j * n + i] = x;
        }
}

/* R H R of the symmetric square: the transform is symmetric, and transforms rows. */
static void rotate_square(float *square, size_t n) {
    kv_rotate(square, n, n);
    transpose(square, n);
    kv_rotate(square, n, n);
}

bool kv_moments_factor(SimdLevel level, const float *moments, size_t head_dim, size_t row_dim, bool rotated,
                       float *factor) {
    static KvTriangle *const TRIANGLE[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_unit_triangle);
    float trace = 0.0f;
    memset(factor, 0, row_dim * row_dim * sizeof *factor);
    for (size_t i = 0; i < head_dim; i++) {
        trace += moment(moments, i, i);
        for (size_t j = 0; j <= i; j++)
            factor[i * row_dim + j] = factor[j * row_dim + i] = moment(moments, i, j);
    }
    if (!isfinite(trace) || trace <= 0)
        return false;
    if (rotated)
        rotate_square(factor, row_dim);
    for (size_t i = 0; i < row_dim; i++)
        factor[i * row_dim + i] += DAMPING * (trace / (float)row_dim);
    return TRIANGLE[level](factor, row_dim);
}
