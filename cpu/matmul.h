/* Products of packed matrices with activations: one table for each instruction set.
 *
 * Coded weights meet activations of 16 bits: 32 of them are s times integers in [-32639, 32639], so that all
 * products of a block and their sum are exact integers. The blocks of a row are then summed in F32, in order, for one
 * token and for many, on every instruction set and any number of threads: results agree to the bit (but for the scalar
 * level, which does not fuse products with sums). F32, F16 and BF16 weights meet F32 activations, column after column.
 * activation_strips.h says how activations are laid out. */
#ifndef STOWKV_MATMUL_H
#define STOWKV_MATMUL_H

#include "cpu/activation_strips.h"
#include "cpu/matvec.h"

typedef struct MatmulKernels {
    size_t strip_tokens; /* tokens of a strip */

    ToStrip *to_strip;
    ToColumns *to_columns;
    Matvec *matvec;

    /* Tokens [0, n_tokens) by pairs of panels [pair_begin, pair_end). */
    void (*matmul)(const PackedMatrix *w,
                   const void *strips, // of to_strip() for coded types, else of to_columns(), one after the other
                   size_t n_tokens, size_t pair_begin, size_t pair_end,
                   void *scratch, // matmul_scratch_bytes(), aligned to 64
                   float *y);     // (n_tokens, n_rows)
} MatmulKernels;

/* Scratch memory for an unpacked pair of panels: codes in bytes and scales in F32, or weights in F32. */
static inline size_t matmul_scratch_bytes(size_t n_columns) {
    return 2 * PANEL_ROWS * n_columns * sizeof(float);
}

SIMD_DECLARE(const MatmulKernels, matmul_kernels, );

#endif
