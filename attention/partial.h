/* What a tile gives a query head, before it is put together with other tiles' (softmax.h). */
#ifndef STOWKV_PARTIAL_H
#define STOWKV_PARTIAL_H

#include <stddef.h>

/* Sums of exp(score - max) * value, not divided by `sum` yet. Those of rotated values are apart: they are rotated back
 * once, in the end. */
typedef struct Partial {
    float *out;     /* (row_dim) */
    float *rotated; /* (row_dim), right behind `out` */
    float *max;     /* the largest q . k */
    float *sum;     /* of the weights */
} Partial;

/* Floats that each partial takes in an array: whole cache lines. */
#define PARTIAL_FLOATS(row_dim) ((2 * (row_dim) + 2 + 15) / 16 * 16)

static inline Partial partial_at(float *partials, size_t index, size_t row_dim) {
    float *out = partials + index * PARTIAL_FLOATS(row_dim), *end = out + 2 * row_dim;
    return (Partial){out, out + row_dim, end, end + 1};
}

#endif
