/* Matrix products, norms and activations, compiled once for each instruction set; see kernels.h. Weights are decoded
 * into a buffer that stays in the nearest cache and multiplied from there: one decoder a type serves every product. */
#include "model/kernels.h"

#include "model/base/simd.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))

#define PIECE 256 /* weights of a row that are decoded at once for a single token: a block of every type */

#if VEC_LANES == 16
#define TOKEN_TILE 4 /* 16 sums, 4 tokens, a row: fits 32 registers */
#else
#define TOKEN_TILE 3 /* 12 sums, 3 tokens, a row: fits 16 registers */
#endif

/* sums[r][t] += w[r] . x[t] over n elements, lane by lane. */
INLINE void accumulate(const float *w, size_t w_stride, size_t n_rows, const float *x, size_t x_stride, size_t n_tokens,
                       size_t n, Vec sums[MATMUL_ROWS][TOKEN_TILE]) {
    size_t whole = n / VEC_LANES * VEC_LANES, rest = n - whole;
    for (size_t k = 0; k < whole; k += VEC_LANES) {
        Vec tokens[TOKEN_TILE];
        for (size_t t = 0; t < n_tokens; t++)
            tokens[t] = vec_load(x + t * x_stride + k);
        for (size_t r = 0; r < n_rows; r++) {
            Vec row = vec_load(w + r * w_stride + k);
            for (size_t t = 0; t < n_tokens; t++)
                sums[r][t] = vec_fma(row, tokens[t], sums[r][t]);
        }
    }
    for (size_t r = 0; r < n_rows && rest > 0; r++)
        for (size_t t = 0; t < n_tokens; t++)
            sums[r][t] = vec_fma(vec_load_partial(w + r * w_stride + whole, rest),
                                 vec_load_partial(x + t * x_stride + whole, rest), sums[r][t]);
}

/* One token: each piece of the rows is decoded and used at once. A constant n_rows keeps the sums in registers. */
INLINE void matvec(const Tensor *w, TensorDecode *decode, const float *x, size_t row, size_t n_rows, float *y) {
    size_t n_columns = w->shape[0];
    float piece[MATMUL_ROWS][PIECE];
    Vec sums[MATMUL_ROWS][TOKEN_TILE];
    for (size_t r = 0; r < n_rows; r++)
        sums[r][0] = vec_zero();
    for (size_t first = 0; first < n_columns; first += PIECE) {
        size_t n = n_columns - first < PIECE ? n_columns - first : PIECE;
        for (size_t r = 0; r < n_rows; r++)
            decode(w, (row + r) * n_columns + first, n, piece[r]);
        accumulate(piece[0], PIECE, n_rows, x + first, 0, 1, n, sums);
    }
    for (size_t r = 0; r < n_rows; r++)
        y[row + r] = vec_sum(sums[r][0]);
}

/* A tile of rows by a tile of tokens, the rows decoded already. */
INLINE void matmul_tile(const float *rows, size_t n_columns, size_t n_rows, const float *x, size_t n_tokens, float *y,
                        size_t y_stride) {
    Vec sums[MATMUL_ROWS][TOKEN_TILE];
    for (size_t r = 0; r < n_rows; r++)
        for (size_t t = 0; t < n_tokens; t++)
            sums[r][t] = vec_zero();
    accumulate(rows, n_columns, n_rows, x, n_columns, n_tokens, n_columns, sums);
    for (size_t t = 0; t < n_tokens; t++) {
        if (n_rows == MATMUL_ROWS)
            vec_store_sums(y + t * y_stride, sums[0][t], sums[1][t], sums[2][t], sums[3][t]);
        else
            for (size_t r = 0; r < n_rows; r++)
                y[t * y_stride + r] = vec_sum(sums[r][t]);
    }
}

/* Decoded rows by a tile of tokens. A constant n_tokens keeps the sums in registers. */
INLINE void matmul_panel(size_t n_tokens, const float *rows, size_t n_columns, size_t n_rows, const float *x, float *y,
                         size_t y_stride) {
    size_t r = 0;
    for (; r + MATMUL_ROWS <= n_rows; r += MATMUL_ROWS)
        matmul_tile(rows + r * n_columns, n_columns, MATMUL_ROWS, x, n_tokens, y + r, y_stride);
    for (; r < n_rows; r++)
        matmul_tile(rows + r * n_columns, n_columns, 1, x, n_tokens, y + r, y_stride);
}

/* Decoded rows by all tokens: a tile of tokens stays in the nearest cache while it meets all rows. */
static void matmul_tokens(const float *rows, size_t n_columns, size_t n_rows, const float *x, size_t n_tokens, float *y,
                          size_t y_stride) {
    for (size_t t = 0; t < n_tokens; t += TOKEN_TILE) {
        const float *tile = x + t * n_columns;
        float *out = y + t * y_stride;
        switch (n_tokens - t) {
        case 1:
            matmul_panel(1, rows, n_columns, n_rows, tile, out, y_stride);
            break;
        case 2:
            matmul_panel(2, rows, n_columns, n_rows, tile, out, y_stride);
            break;
        case 3:
            matmul_panel(3, rows, n_columns, n_rows, tile, out, y_stride);
            break;
        default:
            matmul_panel(TOKEN_TILE, rows, n_columns, n_rows, tile, out, y_stride);
            break;
        }
    }
}

static void matmul_rows(const Tensor *w, TensorDecode *decode, const float *x, size_t n_tokens, size_t row_begin,
                        size_t row_end, float *scratch, float *y) {
    size_t n_columns = w->shape[0], y_stride = w->shape[1];
    size_t row = row_begin;
    if (n_tokens == 1) {
        for (; row + MATMUL_ROWS <= row_end; row += MATMUL_ROWS)
            matvec(w, decode, x, row, MATMUL_ROWS, y);
        for (; row < row_end; row++)
            matvec(w, decode, x, row, 1, y);
        return;
    }
    size_t panel = n_tokens > 2 * TOKEN_TILE ? matmul_panel_rows(n_columns) : MATMUL_ROWS;
    for (size_t n_rows; row < row_end; row += n_rows) {
        n_rows = row_end - row < panel ? row_end - row : panel;
        decode(w, row * n_columns, n_rows * n_columns, scratch);
        matmul_tokens(scratch, n_columns, n_rows, x, n_tokens, y + row, y_stride);
    }
}

static void rmsnorm(const float *x, const float *gain, float eps, size_t n, float *y) {
    size_t whole = n / VEC_LANES * VEC_LANES;
    Vec squares = vec_zero();
    for (size_t i = 0; i < whole; i += VEC_LANES)
        squares = vec_fma(vec_load(x + i), vec_load(x + i), squares);
    Vec last = vec_load_partial(x + whole, n - whole);
    float sum = vec_sum(vec_fma(last, last, squares));
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = gain[i] * (x[i] * scale);
}

INLINE Vec silu_times(Vec z, Vec up) {
    Vec e = vec_exp(vec_mul(z, vec_set1(-1.0f)));
    return vec_mul(vec_div(z, vec_add(vec_set1(1.0f), e)), up);
}

static void swiglu(float *gate, const float *up, size_t n) {
    size_t whole = n / VEC_LANES * VEC_LANES, rest = n - whole;
    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(gate + i, silu_times(vec_load(gate + i), vec_load(up + i)));
    if (rest > 0)
        vec_store_partial(gate + whole,
                          silu_times(vec_load_partial(gate + whole, rest), vec_load_partial(up + whole, rest)), rest);
}

const Kernels SIMD_NAME(model_kernels) = {matmul_rows, rmsnorm, swiglu};
