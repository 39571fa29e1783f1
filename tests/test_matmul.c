/* Matrix products on every instruction set and for every tensor type: against double precision; one-hot activations
 * against the decoded weights; many tokens against one at a time, and the instruction sets against each other, the same
 * to the bit. Shapes include rows and tokens that are no multiple of a panel or a strip. */
#include "base/simd/detect.h"
#include "cpu/products.h"
#include "tests/random_weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TOKENS = 27 };

/* A matrix, and its packed form in a buffer of exactly its size. */
typedef struct Matrix {
    RandomWeights weights;
    PackedMatrix packed;
} Matrix;

static Matrix make_matrix(TensorType type, size_t n_columns, size_t n_rows) {
    Matrix m = {.weights = random_weights(type, n_columns, n_rows)};
    packed_matrix_measure(&m.packed, &m.weights.tensor);
    m.packed.data = aligned_alloc(64, m.packed.size_bytes);
    memset(m.packed.data, 0, m.packed.size_bytes);
    packed_matrix_fill(&m.packed, &m.weights.tensor, 1, m.packed.n_panels);
    packed_matrix_fill(&m.packed, &m.weights.tensor, 0, 1);
    return m;
}

static void free_matrix(Matrix *m) {
    free_weights(&m->weights);
    free(m->packed.data);
}

/* A product by threads, as the backend does it. */
static void multiply_biased(const Matrix *m, SimdLevel level, int n_threads, const float *x, size_t n_tokens, float *y,
                            const Tensor *bias) {
    Error error = {0};
    Tensor w = m->weights.tensor;
    ThreadPool *pool;
    CpuMatmul matmul;
    w.uploaded = &m->packed;
    assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
    cpu_matmul_open(&matmul, level, pool);
    matmul.weights.max_columns = m->packed.n_columns;
    assert_int_equal(cpu_matmul_reserve(&matmul, n_tokens, &error), 0);
    cpu_matmul_run(&matmul, &(WeightProduct){&w, y, bias}, 1, x, n_tokens);
    thread_pool_close(pool);
    cpu_matmul_close(&matmul);
}

static void multiply(const Matrix *m, SimdLevel level, int n_threads, const float *x, size_t n_tokens, float *y) {
    multiply_biased(m, level, n_threads, x, n_tokens, y, NULL);
}

/* Coded weights: rounding a block of activations to 16 bits moves each by at most s / 2, s the largest of them / 32639.
 * The sums of n_blocks runs are rounded 2^-24 each time, relative to terms that scale and minimum make apart: with
 * random codes a minimum is below four times the largest weight of its run. Float weights: n products, each rounded
 * once. */
static double tolerance(const Matrix *m, const float *w, const float *x) {
    size_t n = m->packed.n_columns;
    double rounding = 0, magnitude = 0;
    for (size_t begin = 0; begin < n; begin += PACKED_BLOCK) {
        double largest_x = 0, largest_w = 0, sum_w = 0, sum_x = 0;
        for (size_t i = begin; i < begin + PACKED_BLOCK && i < n; i++) {
            largest_x = fmax(largest_x, fabs((double)x[i]));
            largest_w = fmax(largest_w, fabs((double)w[i]));
            sum_w += fabs((double)w[i]);
            sum_x += fabs((double)x[i]);
            magnitude += fabs((double)w[i] * (double)x[i]);
        }
        if (packed_is_coded(m->packed.type)) {
            rounding += sum_w * largest_x / 32639 / 2 * 1.0001;
            magnitude += 4 * largest_w * sum_x;
        }
    }
    return rounding + magnitude * 0x1p-24 * (packed_is_coded(m->packed.type) ? (double)(2 * n / 16 + 4) : (double)n);
}

static void check_sums(const Matrix *m, const char *what, const float *x, size_t n_tokens, const float *y) {
    size_t n_columns = m->packed.n_columns, n_rows = m->packed.n_rows;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++) {
            const float *w = m->weights.decoded + r * n_columns, *token = x + t * n_columns;
            double sum = 0;
            for (size_t i = 0; i < n_columns; i++)
                sum += (double)w[i] * (double)token[i];
            if (!(fabs((double)y[t * n_rows + r] - sum) <= tolerance(m, w, token)))
                fail_msg("%s %s, %zu x %zu: token %zu of %zu, row %zu: %.9g, expected %.9g +- %.3g", what,
                         tensor_type_info(m->weights.tensor.type)->name, n_columns, n_rows, t, n_tokens, r,
                         (double)y[t * n_rows + r], sum, tolerance(m, w, token));
        }
}

static void check_level(const Matrix *m, SimdLevel level, const float *x, size_t n_tokens, float *y) {
    size_t n_columns = m->packed.n_columns, n_rows = m->packed.n_rows, size = n_tokens * n_rows;
    float *alone = malloc(size * sizeof *alone), *threads = malloc(size * sizeof *threads);
    for (size_t t = 0; t < n_tokens; t++)
        multiply(m, level, 1, x + t * n_columns, 1, alone + t * n_rows);
    multiply(m, level, 1, x, n_tokens, y);
    multiply(m, level, 7, x, n_tokens, threads);
    if (memcmp(y, alone, size * sizeof *y) != 0 || memcmp(y, threads, size * sizeof *y) != 0)
        fail_msg("%s %s, %zu x %zu: %zu tokens differ from one at a time, or with threads", simd_level_name(level),
                 tensor_type_info(m->weights.tensor.type)->name, n_columns, n_rows, n_tokens);
    free(alone);
    free(threads);
}

static void check_product(TensorType type, size_t n_columns, size_t n_rows, size_t n_tokens) {
    Matrix m = make_matrix(type, n_columns, n_rows);
    size_t size = n_tokens * n_rows;
    float *x = malloc(n_tokens * n_columns * sizeof *x), *y = malloc(size * sizeof *y), *fused = NULL;
    for (size_t i = 0; i < n_tokens * n_columns; i++)
        x[i] = random_float() * (random_bits() % 16 == 0 ? 30.0f : 1.0f); /* outliers set the scale of their block */
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        check_level(&m, level, x, n_tokens, y);
        check_sums(&m, simd_level_name(level), x, n_tokens, y);
        if (level == SIMD_SCALAR)
            continue;
        if (fused == NULL)
            fused = memcpy(malloc(size * sizeof *fused), y, size * sizeof *fused);
        else if (memcmp(fused, y, size * sizeof *y) != 0)
            fail_msg("%s differs from other instruction sets: %s", simd_level_name(level),
                     tensor_type_info(type)->name);
    }
    free(x);
    free(y);
    free(fused);
    free_matrix(&m);
}

static void test_products(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        size_t block = type == TYPE_I8_GROUPED ? RANDOM_GROUP : tensor_type_info(type)->block_elements;
        for (size_t n_tokens = 1; n_tokens <= MAX_TOKENS; n_tokens += n_tokens < 14 ? 1 : 6)
            check_product(type, block == 1 ? 41 : 2 * block, 37, n_tokens);
        check_product(type, block == 1 ? 1 : block, 1, 2);
        check_product(type, block == 1 ? 1030 : block == 256 ? 1280 : 17 * block, 70, 13);
        check_product(type, 512, 149, 5);
        check_product(type, 20480, 5, 2); /* panels longer than the prefetch distance */
    }
}

/* A bias is one addition in F32 to what the product is without it, for one token and for many, by any number of
 * threads; rows that are no whole panel or pair of panels included. */
static void test_bias(void **state) {
    (void)state;
    enum { COLUMNS = 256, MOST_ROWS = 70, MOST_TOKENS = 26 };
    static const TensorType TYPES[] = {TYPE_F32, TYPE_BF16, TYPE_Q4_1, TYPE_Q8_0, TYPE_Q6_K};
    static const size_t ROWS[] = {1, 16, 24, 48, MOST_ROWS}, TOKENS[] = {1, 2, 13, MOST_TOKENS};
    static float x[MOST_TOKENS * COLUMNS], y[MOST_TOKENS * MOST_ROWS], biased[MOST_TOKENS * MOST_ROWS];
    float bias[MOST_ROWS];
    for (size_t i = 0; i < MOST_TOKENS * COLUMNS; i++)
        x[i] = random_float();
    for (size_t i = 0; i < MOST_ROWS; i++)
        bias[i] = 100 * random_float();
    for (size_t i = 0; i < 5 * 5 * 4; i++) {
        size_t n_rows = ROWS[i / 4 % 5], n_tokens = TOKENS[i % 4];
        Matrix m = make_matrix(TYPES[i / 20], COLUMNS, n_rows);
        Tensor b = {.type = TYPE_F32, .n_dims = 1, .shape = {n_rows, 1, 1, 1}, .data = (const uint8_t *)bias};
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
            multiply(&m, level, 1, x, n_tokens, y);
            for (size_t j = 0; j < n_tokens * n_rows; j++)
                y[j] += bias[j % n_rows];
            for (int n_threads = 1; n_threads <= 7; n_threads += 3) {
                multiply_biased(&m, level, n_threads, x, n_tokens, biased, &b);
                assert_memory_equal(biased, y, n_tokens * n_rows * sizeof *y);
            }
        }
        free_matrix(&m);
    }
}

/* Matrices that are packed together, by threads: the same bytes as each by itself, and the same products. Their panels
 * are of different sizes and of odd numbers. */
static void test_packed_together(void **state) {
    (void)state;
    enum { COLUMNS = 256, N = 3, MOST_ROWS = 150 };
    static const TensorType TYPES[N] = {TYPE_Q4_K, TYPE_Q6_K, TYPE_F16};
    static const size_t ROWS[N] = {150, 37, 1};
    SimdLevel level = cpu_best_simd_level();
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        Error error = {0};
        ThreadPool *pool;
        CpuMatmul matmul;
        Matrix matrices[N];
        Tensor tensors[N], *together[N];
        WeightProduct products[N];
        float x[COLUMNS], y[N][MOST_ROWS], alone[MOST_ROWS];
        for (size_t i = 0; i < COLUMNS; i++)
            x[i] = random_float();
        for (size_t i = 0; i < N; i++) {
            matrices[i] = make_matrix(TYPES[i], COLUMNS, ROWS[i]);
            tensors[i] = matrices[i].weights.tensor;
            together[i] = &tensors[i];
            products[i] = (WeightProduct){&tensors[i], y[i], NULL};
        }
        assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
        cpu_matmul_open(&matmul, level, pool);
        assert_int_equal(cpu_weights_pack(&matmul.weights, together, N, &error), 0);
        assert_int_equal(cpu_matmul_reserve(&matmul, 1, &error), 0);
        cpu_matmul_run(&matmul, products, N, x, 1);
        for (size_t i = 0; i < N; i++) {
            const PackedMatrix *packed = tensors[i].uploaded;
            assert_int_equal(packed->size_bytes, matrices[i].packed.size_bytes);
            assert_memory_equal(packed->data, matrices[i].packed.data, packed->size_bytes);
            multiply(&matrices[i], level, 1, x, 1, alone);
            assert_memory_equal(y[i], alone, ROWS[i] * sizeof *alone);
            free_matrix(&matrices[i]);
        }
        thread_pool_close(pool);
        cpu_matmul_close(&matmul);
    }
}

/* Rows of every packed form, against the decoder. */
static void test_rows(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        enum { COLUMNS = 768, ROWS = 37 };
        static float row[COLUMNS];
        Matrix m = make_matrix(type, COLUMNS, ROWS);
        for (size_t r = 0; r < ROWS; r++) {
            packed_matrix_row(&m.packed, r, row);
            for (size_t c = 0; c < COLUMNS; c++)
                if (row[c] != m.weights.decoded[r * COLUMNS + c])
                    fail_msg("%s: row %zu, column %zu: %.9g, expected %.9g", tensor_type_info(type)->name, r, c,
                             (double)row[c], (double)m.weights.decoded[r * COLUMNS + c]);
        }
        free_matrix(&m);
    }
}

/* Activations that are 1 once and else 0 pick a column: the weight itself, up to the rounding of 1 / 32639 and of what
 * minima take away. */
static void test_one_hot(void **state) {
    (void)state;
    enum { COLUMNS = 512, ROWS = 20 };
    static float x[COLUMNS], y[ROWS];
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        Matrix m = make_matrix(type, COLUMNS, ROWS);
        float largest = 0;
        for (size_t i = 0; i < COLUMNS * ROWS; i++)
            largest = fabsf(m.weights.decoded[i]) > largest ? fabsf(m.weights.decoded[i]) : largest;
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level))
            for (size_t c = 0; c < COLUMNS; c++) {
                x[c] = 1;
                multiply(&m, level, 1, x, 1, y);
                for (size_t r = 0; r < ROWS; r++)
                    if (!(fabs((double)y[r] - (double)m.weights.decoded[r * COLUMNS + c]) <=
                          4 * (double)largest * 0x1p-22))
                        fail_msg("%s %s: row %zu, column %zu: %.9g, expected %.9g", simd_level_name(level),
                                 tensor_type_info(type)->name, r, c, (double)y[r],
                                 (double)m.weights.decoded[r * COLUMNS + c]);
                x[c] = 0;
            }
        free_matrix(&m);
    }
}

/* INT8 in groups that are no multiple of a block keeps its values, as F32. */
static void test_odd_groups(void **state) {
    (void)state;
    enum { COLUMNS = 40, ROWS = 3 };
    int8_t codes[COLUMNS * ROWS];
    float scales[COLUMNS * ROWS / 8], x[COLUMNS], y[ROWS];
    for (int i = 0; i < COLUMNS * ROWS; i++)
        codes[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < COLUMNS * ROWS / 8; i++)
        scales[i] = 0.25f * (float)(i + 1); /* exact products */
    for (int i = 0; i < COLUMNS; i++)
        x[i] = (float)(i % 5 - 2);
    Matrix m = {.weights.tensor = {.type = TYPE_I8_GROUPED,
                                   .n_dims = 2,
                                   .shape = {COLUMNS, ROWS, 1, 1},
                                   .data = (const uint8_t *)codes,
                                   .scales = scales,
                                   .group = 8}};
    packed_matrix_measure(&m.packed, &m.weights.tensor);
    m.packed.data = aligned_alloc(64, m.packed.size_bytes);
    memset(m.packed.data, 0, m.packed.size_bytes);
    packed_matrix_fill(&m.packed, &m.weights.tensor, 0, m.packed.n_panels);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        multiply(&m, level, 1, x, 1, y);
        for (int r = 0; r < ROWS; r++) {
            float sum = 0;
            for (int i = 0; i < COLUMNS; i++)
                sum += (float)codes[r * COLUMNS + i] * scales[(r * COLUMNS + i) / 8] * x[i];
            assert_true(y[r] == sum);
        }
    }
    free(m.packed.data);
}

/* What is not finite spoils its own token, and every row of it; what is too small to scale is zero. */
static void test_extreme_activations(void **state) {
    (void)state;
    enum { COLUMNS = 64, ROWS = 17, TOKENS = 5 };
    Matrix m = make_matrix(TYPE_Q4_1, COLUMNS, ROWS);
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        float x[TOKENS * COLUMNS], y[TOKENS * ROWS];
        for (size_t i = 0; i < TOKENS * COLUMNS; i++)
            x[i] = i / COLUMNS == 3 ? 1e-40f : random_float();
        x[1 * COLUMNS + 40] = NAN;
        x[2 * COLUMNS + 3] = -INFINITY;
        multiply(&m, level, 1, x, TOKENS, y);
        for (size_t r = 0; r < ROWS; r++) {
            assert_true(isfinite(y[r]) && isfinite(y[4 * ROWS + r]));
            assert_true(!isfinite(y[ROWS + r]) && !isfinite(y[2 * ROWS + r]));
            assert_true(fabsf(y[3 * ROWS + r]) < 1e-30f);
        }
    }
    free_matrix(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_packed_together),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_one_hot),
        cmocka_unit_test(test_odd_groups),
        cmocka_unit_test(test_extreme_activations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
