/* Rotary position embedding of one head (Su et al. 2021): pairs of elements are rotated by the angles of a position. */
#ifndef STOWKV_ROPE_H
#define STOWKV_ROPE_H

#include "base/host_device.h"

#include <math.h>
#include <stddef.h>

/* Which two elements of a head RoPE rotates together. */
typedef enum RopePairing {
    ROPE_INTERLEAVED, /* (2i, 2i + 1): GGUF's "llama" files, llama2.c */
    ROPE_HALVES       /* (i, i + head_dim / 2): Hugging Face's order, other GGUF families */
} RopePairing;

/* Cosine and sine of a pair's angle at a position, in double before rounding. A position below 0 turns back. */
static HOST_DEVICE inline void rope_turn(double frequency, double position, float turn[2]) {
    double angle = position * frequency;
    turn[0] = (float)cos(angle);
    turn[1] = (float)sin(angle);
}

/* Pair i of a head, in place. */
static HOST_DEVICE inline void rope_rotate_pair(float *x, size_t i, size_t head_dim, RopePairing pairing,
                                                const float turn[2]) {
    size_t step = pairing == ROPE_INTERLEAVED ? 2 : 1, partner = pairing == ROPE_INTERLEAVED ? 1 : head_dim / 2;
    float *a = x + i * step, *b = a + partner;
    float cosine = turn[0], sine = turn[1], first = *a, second = *b;
    *a = first * cosine - second * sine;
    *b = first * sine + second * cosine;
}

static HOST_DEVICE inline void rope_rotate(float *x, // (head_dim), in place
                                           size_t head_dim, RopePairing pairing,
                                           const float *rotation) { // (head_dim / 2, 2) cosine and sine
    for (size_t i = 0; i < head_dim / 2; i++)
        rope_rotate_pair(x, i, head_dim, pairing, rotation + 2 * i);
}

#endif
