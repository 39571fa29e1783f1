/* The CPU backend's kernels on activations: one table for each instruction set. */
#ifndef STOWKV_KERNELS_H
#define STOWKV_KERNELS_H

#include "base/rope.h"
#include "base/simd/levels.h"

#include <stddef.h>

typedef struct Kernels {
    /* y = gain * x / sqrt(mean(x^2) + eps), all (n) (Zhang & Sennrich 2019). */
    void (*rmsnorm)(const float *x, const float *gain, float eps, size_t n, float *y);

    /* Rotates each head of a token in place: rope_rotate(). */
    void (*rope)(float *x,               // (n_heads, head_dim)
                 size_t n_heads, size_t head_dim, RopePairing pairing,
                 const float *rotation); // (head_dim / 2, 2) cosine and sine

    /* gate = silu(gate) * up, both (n), silu(z) = z / (1 + e^-z) (Shazeer 2020). */
    void (*swiglu)(float *gate, const float *up, size_t n);

    /* The same with gelu(z) = z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 z^3))) (Hendrycks & Gimpel 2016). */
    void (*geglu)(float *gate, const float *up, size_t n);

    /* x = cap * tanh(x / cap), (n). */
    void (*soft_cap)(float *x, float cap, size_t n);
} Kernels;

SIMD_DECLARE(const Kernels, model_kernels, );

#endif
