/* The CPU backend's kernels on weights and activations: one table for each instruction set. All shapes are row-major,
 * fastest dimension last; activations are F32. */
#ifndef STOWKV_KERNELS_H
#define STOWKV_KERNELS_H

#include "model/base/simd_levels.h"
#include "model/base/tensor.h"

typedef struct Kernels {
    /* y[t][row] = w[row] . x[t] for rows [row_begin, row_end), w decoded a piece at a time and summed in an order that
     * depends on n_columns alone: one token or many, any range of rows, the result is the same to the bit. */
    void (*matmul_rows)(const Tensor *w,      // {n_columns, n_rows}
                        TensorDecode *decode, // of w's type
                        const float *x,       // (n_tokens, n_columns)
                        size_t n_tokens,      //
                        size_t row_begin, size_t row_end,
                        float *scratch, // matmul_panel_rows(n_columns) rows of them, for n_tokens > 1
                        float *y);      // (n_tokens, n_rows)

    /* y = gain * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019). */
    void (*rmsnorm)(const float *x, const float *gain, float eps, size_t n, float *y);

    /* gate = silu(gate) * up, silu(z) = z / (1 + e^-z) (Shazeer 2020). */
    void (*swiglu)(float *gate, const float *up, size_t n);
} Kernels;

#define MATMUL_ROWS 4 /* rows that are multiplied together; ranges of rows should begin at multiples */

/* Rows of weights that are decoded together where they meet several tokens: as many as stay in the second cache, up to
 * 64, while a tile of tokens that stays in the nearest one meets them all. */
static inline size_t matmul_panel_rows(size_t n_columns) {
    size_t rows = 256 * 1024 / (n_columns * sizeof(float)) / MATMUL_ROWS * MATMUL_ROWS;
    return rows < MATMUL_ROWS ? MATMUL_ROWS : rows > 64 ? 64 : rows;
}

SIMD_DECLARE(const Kernels, model_kernels, );

#endif
