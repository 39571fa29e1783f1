/* See moments.h. Without fused operations, so that every level gives the same bits. */
#include "kvcache/codec/moments.h"

#include "base/simd/vectors.h"

#include <math.h>

#define TILE    KV_MOMENTS_TILE
#define VECTORS (TILE / VEC_LANES) /* of a tile's row */
#define ROWS    4                  /* whose sums stay in registers together */

/* ROWS rows of a tile: `down` and `across` are where the queries' elements of its rows and columns begin. */
INLINE void add_rows_of_tile(float *sums, const float *down, const float *across, size_t n_rows, size_t stride) {
    Vec sum[ROWS][VECTORS];
    for (size_t r = 0; r < ROWS; r++)
        for (size_t v = 0; v < VECTORS; v++)
            sum[r][v] = vec_load(sums + r * TILE + v * VEC_LANES);
    for (size_t i = 0; i < n_rows; i++, down += stride, across += stride)
        for (size_t v = 0; v < VECTORS; v++) {
            Vec q = vec_load(across + v * VEC_LANES);
            for (size_t r = 0; r < ROWS; r++)
                sum[r][v] = vec_add(sum[r][v], vec_mul(vec_set1(down[r]), q));
        }
    for (size_t r = 0; r < ROWS; r++)
        for (size_t v = 0; v < VECTORS; v++)
            vec_store(sums + r * TILE + v * VEC_LANES, sum[r][v]);
}

void SIMD_NAME(kv_moments_add_rows)(float *moments, size_t n_tiles, const float *rows, size_t n_rows) {
    size_t stride = n_tiles * TILE;
    for (size_t i = 0; i < n_tiles; i++)
        for (size_t j = 0; j <= i; j++, moments += TILE * TILE)
            for (size_t r = 0; r < TILE; r += ROWS)
                add_rows_of_tile(moments + r * TILE, rows + i * TILE + r, rows + j * TILE, n_rows, stride);
}

/* From the last row up, each takes what it shares with those above it out of them. */
bool SIMD_NAME(kv_unit_triangle)(float *square, size_t n) {
    for (size_t j = n; j-- > 0;) {
        float *last = square + j * n, pivot = last[j];
        if (!(pivot > 0) || !isfinite(pivot))
            return false;
        for (size_t i = 0; i < j; i++) {
            float *row = square + i * n, share = last[i] / pivot;
            for (size_t k = 0; k <= i; k++)
                row[k] -= share * last[k];
        }
        for (size_t i = 0; i < j; i++)
            last[i] /= pivot;
    }
    return true;
}
