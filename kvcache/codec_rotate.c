/* The fast Walsh-Hadamard transform: n log2(n) additions instead of a product with the matrix whose element (i, j) is
 * (-1)^popcount(i & j) / sqrt(n). It spreads an outlier over all elements, which codes of few bits need. */
#include "kvcache/codec.h"

#include <math.h>

static void transform(float *x, size_t n) {
    for (size_t half = 1; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half)
            for (size_t j = i; j < i + half; j++) {
                float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
}

void kv_rotate(float *rows, size_t n_rows, size_t n) {
    float norm = (float)(1 / sqrt((double)n));
    for (size_t i = 0; i < n_rows; i++, rows += n) {
        transform(rows, n);
        for (size_t j = 0; j < n; j++)
            rows[j] *= norm;
    }
}
