/* Matrix products: against double precision, and many tokens against one at a time, the same to the bit, on every
 * instruction set, for shapes that are no multiple of any tile. */
#include "model/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_COLUMNS = 20000, MAX_ROWS = 150, MAX_TOKENS = 19, MAX_WEIGHTS = 100000 };

static float weights[MAX_WEIGHTS], x[MAX_TOKENS * MAX_COLUMNS];
static float together[MAX_TOKENS * MAX_ROWS], alone[MAX_TOKENS * MAX_ROWS];

static void fill_random(float *out, size_t n) {
    static uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        out[i] = (float)(int32_t)(state >> 32) / 0x1p31f;
    }
}

/* A sum of n products below 1 in size: each of its roundings is below n * 2^-24. */
static void check_sums(const char *level, size_t n_columns, size_t n_rows, size_t n_tokens) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++) {
            double sum = 0, magnitude = 0;
            for (size_t i = 0; i < n_columns; i++) {
                double product = (double)weights[r * n_columns + i] * (double)x[t * n_columns + i];
                sum += product;
                magnitude += fabs(product);
            }
            if (!(fabs((double)together[t * n_rows + r] - sum) <= magnitude * (double)n_columns * 0x1p-24))
                fail_msg("%s, %zu x %zu: token %zu of %zu, row %zu: %.9g, expected %.9g", level, n_columns, n_rows, t,
                         n_tokens, r, (double)together[t * n_rows + r], sum);
        }
}

static void check_matmul(const Kernels *kernels, SimdLevel level, size_t n_columns, size_t n_rows, size_t n_tokens) {
    Tensor w = {.type = TYPE_F32, .n_dims = 2, .shape = {n_columns, n_rows, 1, 1}, .data = (const uint8_t *)weights};
    TensorDecode *decode = tensor_decoder(TYPE_F32, level);
    size_t scratch_bytes = matmul_panel_rows(n_columns) * n_columns * sizeof(float); /* not a float more */
    float *scratch = malloc(scratch_bytes);
    fill_random(x, n_tokens * n_columns);
    for (size_t t = 0; t < n_tokens; t++)
        kernels->matmul_rows(&w, decode, x + t * n_columns, 1, 0, n_rows, NULL, alone + t * n_rows);
    size_t cut = n_rows / 2 / MATMUL_ROWS * MATMUL_ROWS;
    kernels->matmul_rows(&w, decode, x, n_tokens, cut, n_rows, scratch, together);
    kernels->matmul_rows(&w, decode, x, n_tokens, 0, cut, scratch, together);
    check_sums(simd_level_features(level), n_columns, n_rows, n_tokens);
    if (memcmp(together, alone, n_tokens * n_rows * sizeof *alone) != 0)
        fail_msg("%s, %zu x %zu: %zu tokens differ from one at a time", simd_level_features(level), n_columns, n_rows,
                 n_tokens);
    free(scratch);
}

static void test_matmul(void **state) {
    (void)state;
    static const Kernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(model_kernels);
    const size_t shapes[][2] = {{1, 1}, {3, 5}, {16, 4}, {40, 33}, {64, 150}, {576, 149}, {1030, 70}, {20000, 5}};
    fill_random(weights, MAX_WEIGHTS);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t n_tokens = 1; n_tokens <= MAX_TOKENS; n_tokens++)
                check_matmul(KERNELS[level], level, shapes[i][0], shapes[i][1], n_tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_matmul)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
