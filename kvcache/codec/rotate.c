/* The fast Walsh-Hadamard transform: n log2(n) additions instead of a product with the matrix whose element (i, j) is
 * (-1)^popcount(i & j) / sqrt(n). It spreads an outlier over all elements, which codes of few bits need. */
#include "kvcache/codec/codec.h"

#include <math.h>
#include <string.h>

typedef float Four __attribute__((vector_size(16)));

static Four load_four(const float *from) {
    Four four;
    memcpy(&four, from, sizeof four);
    return four;
}

/* Stages 1 and 2 of four numbers: a + b, a - b, … */
static void transform_four(float x[4]) {
    Four all = load_four(x);
    all = __builtin_shufflevector(all, all, 1, 0, 3, 2) + all * (Four){1, -1, 1, -1};
    all = __builtin_shufflevector(all, all, 2, 3, 0, 1) + all * (Four){1, 1, -1, -1};
    memcpy(x, &all, sizeof all);
}

static void transform_stage(float *x, size_t n, size_t half) {
    for (size_t i = 0; i < n; i += 2 * half)
        for (size_t j = i; j < i + half; j++) {
            float a = x[j], b = x[j + half];
            x[j] = a + b;
            x[j + half] = a - b;
        }
}

static void transform(float *x, size_t n) {
    size_t half = 1;
    if (n >= 4)
        for (size_t i = 0; i < n; i += half = 4)
            transform_four(x + i);
    for (; half < n; half *= 2)
        transform_stage(x, n, half);
}

void kv_rotate(float *rows, size_t n_rows, size_t n) {
    float norm = (float)(1 / sqrt((double)n));
    for (size_t i = 0; i < n_rows; i++, rows += n) {
        transform(rows, n);
        for (size_t j = 0; j < n; j++)
            rows[j] *= norm;
    }
}
