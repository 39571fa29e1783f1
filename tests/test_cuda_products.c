/* The CUDA backend's products in F32, lookups, norms and elementwise steps, on the host (tests/cuda_shim): against
 * double precision or the CPU's functions, for every tensor type, with rows, columns and tokens that fill no panel,
 * warp or tile; a token in a batch and alone, the same to the bit, in whatever order threads run. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda/elements.h"
#include "cuda/matvec.h"
#include "model/packed_matrix.h"
#include "tests/cuda_fixture.h"

#define ROUNDING 0x1p-24 /* relative error of an F32 operation */

static const CudaNorm AS_IT_IS = {0};

/* ---- Products */

/* Products of host arrays: y (n_tokens, n_rows). Then they are added to themselves: twice as much, to the bit. */
static void multiply(const CudaMatrix *w, const float *bias, const float *x, size_t n_tokens, float *y) {
    float *device_x = to_device(x, n_tokens * w->n_columns * sizeof *x);
    float *device_y = to_device(NULL, n_tokens * w->n_rows * sizeof *y);
    float *device_bias = bias == NULL ? NULL : to_device(bias, w->n_rows * sizeof *bias);
    float *twice = malloc(n_tokens * w->n_rows * sizeof *twice);
    cuda_matvec(&(CudaProduct){*w, device_bias, device_y}, 1, AS_IT_IS, device_x, n_tokens, stream);
    from_device(y, device_y, n_tokens * w->n_rows * sizeof *y);
    cuda_matvec_add(&(CudaProduct){*w, device_bias, device_y}, device_x, n_tokens, stream);
    from_device(twice, device_y, n_tokens * w->n_rows * sizeof *y);
    for (size_t i = 0; i < n_tokens * w->n_rows; i++)
        assert_true(twice[i] == 2 * y[i] || isnan(y[i]));
    free(twice);
    cudaFree(device_x);
    cudaFree(device_y);
    cudaFree(device_bias);
}

/* Of a row: a weight of a run of n columns is S (code / 2^bits - bias / 2^bits) + minimum. S is the distance that codes
 * of all values would span: with random codes below 4 times that of the weights, and |minimum| below S and the largest
 * of them. In a run, x meets numbers in [2, 4) of S / 2: n roundings of sums below 2 S sum|x|, and of sum(x) itself, n
 * of at most 1.5 S sum|x|; the minimum meets sum(x). Then sums of runs are rounded, and the decoded weights of the
 * reference were. Weights without codes: n products, each rounded once. */
static double tolerance(TensorType type, const float *w, const float *x, size_t n_columns) {
    size_t run = packed_is_coded(type) ? PACKED_FORMATS[type].run : n_columns, n_runs = n_columns / run;
    double bound = 0;
    for (size_t begin = 0; begin < n_columns; begin += run) {
        double least = INFINITY, most = -INFINITY, sum_x = 0, products = 0;
        for (size_t i = begin; i < begin + run; i++) {
            least = fmin(least, (double)w[i]);
            most = fmax(most, (double)w[i]);
            sum_x += fabs((double)x[i]);
            products += fabs((double)w[i] * (double)x[i]);
        }
        double span = 4 * (most - least), minimum = span + fmax(fabs(least), fabs(most));
        double sums = (double)n_runs / 32 + 16; /* of runs in a lane, two operations each, and over lanes and warps */
        if (packed_is_coded(type))
            bound += ((4 * span + minimum) * (double)(run + 1) + 2 * sums * (span + minimum)) * sum_x * ROUNDING;
        else
            bound += products * (double)n_columns * ROUNDING;
    }
    return bound;
}

static void check_sums(const RandomWeights *w, const float *x, size_t n_tokens, const float *y) {
    size_t n_columns = w->tensor.shape[0], n_rows = w->tensor.shape[1];
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++) {
            const float *row = w->decoded + r * n_columns, *token = x + t * n_columns;
            double sum = 0, limit = tolerance(w->tensor.type, row, token, n_columns);
            for (size_t i = 0; i < n_columns; i++)
                sum += (double)row[i] * (double)token[i];
            if (!(fabs((double)y[t * n_rows + r] - sum) <= limit))
                fail_msg("%s, %zu x %zu: token %zu of %zu, row %zu: %.9g, expected %.9g +- %.3g",
                         tensor_type_info(w->tensor.type)->name, n_columns, n_rows, t, n_tokens, r,
                         (double)y[t * n_rows + r], sum, limit);
        }
}

static void check_product(TensorType type, size_t n_columns, size_t n_rows, size_t n_tokens) {
    RandomWeights w = random_weights(type, n_columns, n_rows);
    CudaWeights weights;
    size_t size = n_tokens * n_rows;
    float *x = random_array(n_tokens * n_columns), *y = malloc(size * sizeof *y), *alone = malloc(size * sizeof *y);
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    cuda_shim_set_seed(0);
    for (size_t t = 0; t < n_tokens; t++)
        multiply(w.tensor.uploaded, NULL, x + t * n_columns, 1, alone + t * n_rows);
    check_sums(&w, x, n_tokens, alone);
    for (unsigned seed = 1; seed < 5; seed++) {
        cuda_shim_set_seed(seed);
        multiply(w.tensor.uploaded, NULL, x, n_tokens, y);
        if (memcmp(y, alone, size * sizeof *y) != 0)
            fail_msg("%s, %zu x %zu: %zu tokens differ from one at a time, seed %u", tensor_type_info(type)->name,
                     n_columns, n_rows, n_tokens, seed);
    }
    cuda_weights_close(&weights);
    free(x);
    free(y);
    free(alone);
    free_weights(&w);
}

static void test_products(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        size_t block = type == TYPE_I8_GROUPED ? RANDOM_GROUP : tensor_type_info(type)->block_elements;
        check_product(type, block == 1 ? 41 : 2 * block, 37, 3);
        check_product(type, block == 1 ? 1 : block, 1, 2);
        check_product(type, block == 1 ? 257 : block == 256 ? 2304 : 9 * block, 33, 5);
        check_product(type, block == 1 ? 1030 : block == 256 ? 1280 : 17 * block, 17, 9);
        check_product(type, 4864 + (block < 256 ? block : 0), 16, 4); /* warps have two or three chunks of columns */
    }
}

/* Matrices of several types, of odd shapes, with and without biases, in one call: as each alone; a bias is one addition
 * to the whole sum. */
static void test_products_together(void **state) {
    (void)state;
    enum { COLUMNS = 256, N = 6, TOKENS = 2 };
    static const TensorType TYPES[N] = {TYPE_Q4_K, TYPE_Q4_K, TYPE_Q6_K, TYPE_F16, TYPE_F16, TYPE_F16};
    static const size_t ROWS[N] = {70, 37, 5, 33, 1, 16};
    float *x = random_array(TOKENS * COLUMNS), *device_x = to_device(x, TOKENS * COLUMNS * sizeof *x);
    RandomWeights w[N];
    CudaWeights weights[N];
    CudaProduct products[N];
    float *biases[N];
    for (size_t i = 0; i < N; i++) {
        w[i] = random_weights(TYPES[i], COLUMNS, ROWS[i]);
        upload(&weights[i], &w[i].tensor, TENSOR_MATRIX);
        biases[i] = random_array(ROWS[i]);
        products[i] = (CudaProduct){*(const CudaMatrix *)w[i].tensor.uploaded,
                                    i % 2 == 0 ? to_device(biases[i], ROWS[i] * sizeof(float)) : NULL,
                                    to_device(NULL, TOKENS * ROWS[i] * sizeof(float))};
    }
    cuda_matvec(products, N, AS_IT_IS, device_x, TOKENS, stream);
    for (size_t i = 0; i < N; i++) {
        float y[TOKENS * 70], alone[TOKENS * 70];
        from_device(y, products[i].y, TOKENS * ROWS[i] * sizeof *y);
        multiply(w[i].tensor.uploaded, NULL, x, TOKENS, alone);
        for (size_t j = 0; j < TOKENS * ROWS[i]; j++)
            assert_true(y[j] == (i % 2 == 0 ? alone[j] + biases[i][j % ROWS[i]] : alone[j]));
        cuda_weights_close(&weights[i]);
        free_weights(&w[i]);
        free(biases[i]);
        cudaFree(products[i].y);
        cudaFree((void *)products[i].bias);
    }
    cudaFree(device_x);
    free(x);
}

/* In one launch as in three, to the bit. */
static void check_gate(TensorType type, size_t n_columns, size_t n_rows, size_t n_tokens) {
    RandomWeights w[2];
    CudaWeights weights[2];
    CudaProduct products[2];
    size_t n = n_tokens * n_rows;
    float *x = random_array(n_tokens * n_columns), *device_x = to_device(x, n_tokens * n_columns * sizeof *x);
    float *bias = random_array(n_rows), *gated = malloc(n * sizeof *gated), *expected = malloc(n * sizeof *expected);
    for (size_t i = 0; i < 2; i++) {
        w[i] = random_weights(type, n_columns, n_rows);
        upload(&weights[i], &w[i].tensor, TENSOR_MATRIX);
        products[i] =
            (CudaProduct){*(const CudaMatrix *)w[i].tensor.uploaded,
                          i == 1 ? to_device(bias, n_rows * sizeof *bias) : NULL, to_device(NULL, n * sizeof(float))};
    }
    assert_true(cuda_matvec_gates(&products[0].w, &products[1].w));
    cuda_matvec_gate(products, AS_IT_IS, device_x, n_tokens, stream);
    from_device(gated, products[0].y, n * sizeof *gated);
    cuda_matvec(products, 2, AS_IT_IS, device_x, n_tokens, stream);
    cuda_swiglu(products[0].y, products[1].y, n, stream);
    from_device(expected, products[0].y, n * sizeof *expected);
    assert_memory_equal(gated, expected, n * sizeof *gated);
    for (size_t i = 0; i < 2; i++) {
        cuda_weights_close(&weights[i]);
        free_weights(&w[i]);
        cudaFree(products[i].y);
        cudaFree((void *)products[i].bias);
    }
    cudaFree(device_x);
    free(x);
    free(bias);
    free(gated);
    free(expected);
}

static void test_gates(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++)
        for (unsigned seed = 0; seed < 3; seed++) {
            cuda_shim_set_seed(seed);
            check_gate(type, 512, 37, seed == 0 ? 1 : 5);
        }
    cuda_shim_set_seed(0);
}

/* ---- Products that normalise */

enum { NORMED_TOKENS = 3, NORMED_MATRICES = 2 };

/* Into y (NORMED_MATRICES + 1, NORMED_TOKENS, n_rows), each matrix and the gate of both: of tokens that are normalised
 * together before, or, alone, as they are read. */
static void multiply_normed(const CudaMatrix *const w[NORMED_MATRICES], CudaNorm norm, const float *x, bool before,
                            float *y) {
    size_t n_columns = w[0]->n_columns, n_rows = w[0]->n_rows, n = NORMED_TOKENS * n_rows;
    size_t n_together = before ? NORMED_TOKENS : 1;
    float *device_y = to_device(NULL, (NORMED_MATRICES + 1) * n * sizeof *y);
    float *normed = to_device(NULL, NORMED_TOKENS * n_columns * sizeof *x);
    if (before) {
        cuda_rmsnorm(x, norm.gain, norm.eps, n_columns, NORMED_TOKENS, normed, stream);
        x = normed;
        norm = AS_IT_IS;
    }
    for (size_t t = 0; t < NORMED_TOKENS; t += n_together, x += n_together * n_columns) {
        float *own = device_y + t * n_rows;
        const CudaProduct products[] = {{*w[0], NULL, own}, {*w[1], NULL, own + n}};
        const CudaProduct gate_up[] = {{*w[0], NULL, own + 2 * n}, {*w[1], NULL, NULL}};
        cuda_matvec(products, NORMED_MATRICES, norm, x, n_together, stream);
        cuda_matvec_gate(gate_up, norm, x, n_together, stream);
    }
    from_device(y, device_y, (NORMED_MATRICES + 1) * n * sizeof *y);
    cudaFree(device_y);
    cudaFree(normed);
}

/* test_rmsnorm and test_products hold the two steps against double precision. */
static void check_normed(TensorType type, size_t n_columns, size_t n_rows) {
    RandomWeights w[NORMED_MATRICES];
    CudaWeights weights[NORMED_MATRICES];
    const CudaMatrix *matrices[NORMED_MATRICES];
    size_t size = (NORMED_MATRICES + 1) * NORMED_TOKENS * n_rows * sizeof(float);
    float *x = random_array(NORMED_TOKENS * n_columns), *gain = random_array(n_columns);
    float *device_x = to_device(x, NORMED_TOKENS * n_columns * sizeof *x), *y = malloc(size), *expected = malloc(size);
    CudaNorm norm = {to_device(gain, n_columns * sizeof *gain), 0.25f};
    for (size_t i = 0; i < NORMED_MATRICES; i++) {
        w[i] = random_weights(type, n_columns, n_rows);
        upload(&weights[i], &w[i].tensor, TENSOR_MATRIX);
        matrices[i] = w[i].tensor.uploaded;
    }
    assert_true(cuda_matvec_norms(n_columns, 1) && !cuda_matvec_norms(n_columns, 2));
    multiply_normed(matrices, norm, device_x, true, expected);
    for (unsigned seed = 0; seed < 2; seed++) {
        cuda_shim_set_seed(seed);
        multiply_normed(matrices, norm, device_x, false, y);
        if (memcmp(y, expected, size) != 0)
            fail_msg("%s, %zu x %zu: tokens that products normalise differ, seed %u", tensor_type_info(type)->name,
                     n_columns, n_rows, seed);
    }
    for (size_t i = 0; i < NORMED_MATRICES; i++) {
        cuda_weights_close(&weights[i]);
        free_weights(&w[i]);
    }
    cudaFree(device_x);
    cudaFree((void *)norm.gain);
    free(x);
    free(gain);
    free(y);
    free(expected);
}

/* As of tokens that were normalised before, to the bit; up to the columns that shared memory holds. */
static void test_norms_in_products(void **state) {
    (void)state;
    enum { MOST = 10240 };
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++)
        check_normed(type, 2560, 17);
    check_normed(TYPE_F32, 4, 3);
    check_normed(TYPE_F16, 1036, 33);
    check_normed(TYPE_Q8_0, 32, 16);
    check_normed(TYPE_Q4_0, MOST, 5);
    assert_false(cuda_matvec_norms(MOST + 4, 1));
    assert_false(cuda_matvec_norms(41, 1));
    cuda_shim_set_seed(0);
}

/* Activations that are 1 once and else 0 pick a column: the weight itself, up to the rounding of what minima take away.
 */
static void test_one_hot(void **state) {
    (void)state;
    enum { COLUMNS = 512, ROWS = 4, TOKENS = 32 };
    static float x[TOKENS * COLUMNS], y[TOKENS * ROWS];
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        RandomWeights w = random_weights(type, COLUMNS, ROWS);
        CudaWeights weights;
        float largest = 0;
        upload(&weights, &w.tensor, TENSOR_MATRIX);
        for (size_t i = 0; i < COLUMNS * ROWS; i++)
            largest = fmaxf(largest, fabsf(w.decoded[i]));
        memset(x, 0, sizeof x);
        for (size_t t = 0; t < TOKENS; t++)
            x[t * COLUMNS + t * 17 % COLUMNS] = 1; /* all places in a block, all blocks */
        multiply(w.tensor.uploaded, NULL, x, TOKENS, y);
        for (size_t i = 0; i < TOKENS * ROWS; i++) {
            float expected = w.decoded[i % ROWS * COLUMNS + i / ROWS * 17 % COLUMNS];
            if (!(fabs((double)y[i] - (double)expected) <= 4 * (double)largest * ROUNDING))
                fail_msg("%s: token %zu, row %zu: %.9g, expected %.9g", tensor_type_info(type)->name, i / ROWS,
                         i % ROWS, (double)y[i], (double)expected);
        }
        cuda_weights_close(&weights);
        free_weights(&w);
    }
}

/* INT8 in groups that are no multiple of a block keeps its values, as F32: exact products here. */
static void test_odd_groups(void **state) {
    (void)state;
    enum { COLUMNS = 40, ROWS = 3 };
    int8_t codes[COLUMNS * ROWS];
    float scales[COLUMNS * ROWS / 8], x[COLUMNS], y[ROWS];
    CudaWeights weights;
    for (int i = 0; i < COLUMNS * ROWS; i++)
        codes[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < COLUMNS * ROWS / 8; i++)
        scales[i] = 0.25f * (float)(i + 1);
    for (int i = 0; i < COLUMNS; i++)
        x[i] = (float)(i % 5 - 2);
    Tensor tensor = {.type = TYPE_I8_GROUPED,
                     .n_dims = 2,
                     .shape = {COLUMNS, ROWS, 1, 1},
                     .data = (const uint8_t *)codes,
                     .scales = scales,
                     .group = 8};
    upload(&weights, &tensor, TENSOR_MATRIX);
    multiply(tensor.uploaded, NULL, x, 1, y);
    for (int r = 0; r < ROWS; r++) {
        float sum = 0;
        for (int i = 0; i < COLUMNS; i++)
            sum += (float)codes[r * COLUMNS + i] * scales[(r * COLUMNS + i) / 8] * x[i];
        assert_true(y[r] == sum);
    }
    cuda_weights_close(&weights);
}

/* What is not finite spoils its own token, and every row of it. */
static void test_extreme_activations(void **state) {
    (void)state;
    enum { COLUMNS = 64, ROWS = 17, TOKENS = 5 };
    static const TensorType TYPES[] = {TYPE_Q4_1, TYPE_Q8_0, TYPE_F16};
    for (size_t i = 0; i < 3; i++) {
        RandomWeights w = random_weights(TYPES[i], COLUMNS, ROWS);
        CudaWeights weights;
        float *x = random_array(TOKENS * COLUMNS), y[TOKENS * ROWS];
        x[1 * COLUMNS + 40] = NAN;
        x[2 * COLUMNS + 3] = -INFINITY;
        for (size_t c = 0; c < COLUMNS; c++)
            x[3 * COLUMNS + c] = 1e-40f;
        upload(&weights, &w.tensor, TENSOR_MATRIX);
        multiply(w.tensor.uploaded, NULL, x, TOKENS, y);
        for (size_t r = 0; r < ROWS; r++) {
            assert_true(isfinite(y[r]) && isfinite(y[4 * ROWS + r]));
            assert_true(!isfinite(y[ROWS + r]) && !isfinite(y[2 * ROWS + r]));
            assert_true(fabsf(y[3 * ROWS + r]) < 1e-30f);
        }
        cuda_weights_close(&weights);
        free_weights(&w);
        free(x);
    }
}

/* ---- Weights */

static void test_too_little_memory(void **state) {
    (void)state;
    RandomWeights w = random_weights(TYPE_Q4_0, 256, 40);
    Tensor *tensor = &w.tensor;
    PackedMatrix packed;
    Error error = {0};
    CudaWeights weights;
    char expected[32];
    packed_matrix_measure(&packed, tensor);
    snprintf(expected, sizeof expected, "weights need %.1f MB", (double)packed.size_bytes / 1e6);
    cuda_weights_open(&weights, pool, stream);
    cuda_shim_set_memory(packed.size_bytes / 2);
    assert_int_equal(cuda_weights_announce(&weights, &tensor, 1, TENSOR_MATRIX, &error), 0);
    assert_int_equal(cuda_weights_upload(&weights, &tensor, 1, TENSOR_MATRIX, &error), ERROR_MEMORY);
    assert_int_equal(error.code, ERROR_MEMORY);
    assert_non_null(strstr(error.message, expected));
    assert_non_null(strstr(error.message, "--device cpu"));
    assert_null(tensor->uploaded);
    cuda_weights_close(&weights);
    cuda_shim_reset();
    free_weights(&w);
}

/* Whichever call of the runtime fails: an error that names the tensor, and no memory stays taken. */
static void test_failing_device(void **state) {
    (void)state;
    static const cudaError_t FAILURES[] = {cudaErrorLaunchFailure, cudaErrorMemoryAllocation};
    RandomWeights w = random_weights(TYPE_Q4_0, 256, 100);
    float values[3] = {1, 2, 3};
    Tensor vector = {.name = sv("gains"), .n_dims = 1, .shape = {3, 1, 1, 1}, .data = (const uint8_t *)values};
    Tensor *tensors[] = {&w.tensor, &vector};
    for (int i = 0; i < 2; i++) {
        bool failed = true;
        for (int n = 1; failed; n++) {
            Error error = {0};
            CudaWeights weights;
            w.tensor.uploaded = vector.uploaded = NULL;
            cuda_weights_open(&weights, pool, stream);
            weights.piece_bytes = 10000;
            cuda_shim_fail_after(n, FAILURES[i]);
            assert_int_equal(cuda_weights_announce(&weights, &tensors[0], 1, TENSOR_MATRIX, &error), 0);
            assert_int_equal(cuda_weights_announce(&weights, &tensors[1], 1, TENSOR_VECTOR, &error), 0);
            int code = cuda_weights_upload(&weights, &tensors[0], 1, TENSOR_MATRIX, &error);
            if (code == 0)
                code = cuda_weights_upload(&weights, &tensors[1], 1, TENSOR_VECTOR, &error);
            if (code == 0)
                code = cuda_weights_ready(&weights, &error);
            failed = cuda_shim_counts().failed;
            cuda_shim_reset();
            assert_int_equal(code < 0, failed);
            assert_int_equal(error.code, code);
            if (failed && strstr(error.message, "weights") == NULL && strstr(error.message, "gains") == NULL)
                fail_msg("\"%s\" names no tensor", error.message);
            cuda_weights_close(&weights);
            assert_int_equal(cuda_shim_counts().device_bytes, 0);
        }
    }
    free_weights(&w);
}

static void check_uploaded(const RandomWeights *w) {
    const CudaMatrix *matrix = w->tensor.uploaded;
    PackedMatrix packed;
    packed_matrix_measure(&packed, &w->tensor);
    packed.data = calloc(packed.size_bytes, 1);
    uint8_t *back = malloc(packed.size_bytes);
    packed_matrix_fill(&packed, &w->tensor, 0, packed.n_panels);
    from_device(back, (const float *)(const void *)matrix->panels, packed.size_bytes);
    assert_memory_equal(back, packed.data, packed.size_bytes);
    assert_int_equal((uintptr_t)matrix->panels % CUDA_WEIGHT_ALIGNMENT, 0);
    free(back);
    free(packed.data);
}

/* One allocation, of as many bytes as were announced; no tensor lies over another, each at a multiple of 256. */
static void test_arena(void **state) {
    (void)state;
    enum { N = 3 };
    const TensorType types[N] = {TYPE_Q4_0, TYPE_F32, TYPE_F16};
    const float gains[] = {1, 2, 3};
    Tensor vector = {.name = sv("gains"), .n_dims = 1, .shape = {3, 1, 1, 1}, .data = (const uint8_t *)gains};
    Tensor *tensors[N], *vectors[] = {&vector};
    RandomWeights w[N];
    CudaWeights weights;
    Error error = {0};
    float back[3];
    size_t expected = sizeof gains;
    for (size_t i = 0; i < N; i++) {
        PackedMatrix packed;
        w[i] = random_weights(types[i], 64 + 32 * i, 7 + 5 * i);
        tensors[i] = &w[i].tensor;
        packed_matrix_measure(&packed, tensors[i]);
        expected = (expected + 255) / 256 * 256 + packed.size_bytes;
    }
    cuda_weights_open(&weights, pool, stream);
    assert_int_equal(cuda_weights_announce(&weights, vectors, 1, TENSOR_VECTOR, &error), 0);
    assert_int_equal(cuda_weights_announce(&weights, tensors, N, TENSOR_MATRIX, &error), 0);
    assert_int_equal(cuda_weights_upload(&weights, vectors, 1, TENSOR_VECTOR, &error), 0);
    assert_int_equal(cuda_weights_upload(&weights, tensors, N, TENSOR_MATRIX, &error), 0);
    assert_int_equal(cuda_weights_ready(&weights, &error), 0);
    assert_int_equal(weights.size_bytes, expected);
    assert_int_equal(cuda_shim_counts().device_bytes, expected);
    assert_int_equal(cuda_shim_counts().n_allocated, 1);
    from_device(back, vector.uploaded, sizeof back);
    assert_memory_equal(back, gains, sizeof back);
    for (size_t i = 0; i < N; i++) {
        check_uploaded(&w[i]);
        free_weights(&w[i]);
    }
    cuda_weights_close(&weights);
}

static void test_vectors(void **state) {
    (void)state;
    enum { N = 37 };
    float *vector = random_array(N), back[N];
    Tensor tensor = {.type = TYPE_F32, .n_dims = 1, .shape = {N, 1, 1, 1}, .data = (const uint8_t *)vector};
    CudaWeights weights;
    upload(&weights, &tensor, TENSOR_VECTOR);
    assert_int_equal(weights.size_bytes, sizeof back);
    from_device(back, tensor.uploaded, sizeof back);
    assert_memory_equal(back, vector, sizeof back);
    cuda_weights_close(&weights);
    free(vector);
}

/* Rows of every type, however it was uploaded, are the decoder's to the bit. */
static void test_embed(void **state) {
    (void)state;
    enum { COLUMNS = 768, ROWS = 37, TOKENS = 5 };
    static const int32_t IDS[TOKENS] = {36, 0, 17, 17, 5};
    static float x[TOKENS * COLUMNS];
    float *ids = to_device(IDS, sizeof IDS), *device_x = to_device(NULL, sizeof x);
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        RandomWeights w = random_weights(type, COLUMNS, ROWS);
        CudaWeights weights;
        upload(&weights, &w.tensor, type % 2 == 0 ? TENSOR_ROWS : TENSOR_MATRIX);
        cuda_embed(w.tensor.uploaded, (const int32_t *)ids, TOKENS, device_x, stream);
        from_device(x, device_x, sizeof x);
        for (size_t i = 0; i < TOKENS * COLUMNS; i++) {
            float expected = w.decoded[(size_t)IDS[i / COLUMNS] * COLUMNS + i % COLUMNS];
            if (x[i] != expected)
                fail_msg("%s: row %d, column %zu: %.9g, expected %.9g", tensor_type_info(type)->name, IDS[i / COLUMNS],
                         i % COLUMNS, (double)x[i], (double)expected);
        }
        cuda_weights_close(&weights);
        free_weights(&w);
    }
    cudaFree(ids);
    cudaFree(device_x);
}

/* ---- Norms, RoPE, elementwise */

/* A sum of n squares in lanes and warps has below n / 256 + 20 roundings, half of which reach its root; then eps, root,
 * quotient and two products. eps is as large as it must be to be seen. */
static void test_rmsnorm(void **state) {
    (void)state;
    enum { TOKENS = 3, MOST = 1027 };
    static const size_t SIZES[] = {1, 31, 512, 513, MOST};
    const float eps = 0.25f;
    for (size_t i = 0; i < 5; i++) {
        size_t n = SIZES[i], size = TOKENS * n * sizeof(float);
        float *x = random_array(TOKENS * n), *gain = random_array(n), y[TOKENS * MOST];
        float *device_x = to_device(x, size), *device_gain = to_device(gain, n * sizeof *gain);
        float *device_y = to_device(NULL, size);
        cuda_shim_set_seed((unsigned)i);
        cuda_rmsnorm(device_x, device_gain, eps, n, TOKENS, device_y, stream);
        from_device(y, device_y, size);
        for (size_t t = 0; t < TOKENS; t++) {
            double squares = 0;
            for (size_t j = 0; j < n; j++)
                squares += (double)x[t * n + j] * (double)x[t * n + j];
            double scale = 1 / sqrt(squares / (double)n + (double)eps);
            for (size_t j = 0; j < n; j++) {
                double expected = (double)gain[j] * (double)x[t * n + j] * scale;
                assert_true(fabs((double)y[t * n + j] - expected) <= 20 * ROUNDING * fabs(expected));
            }
        }
        cudaFree(device_x);
        cudaFree(device_gain);
        cudaFree(device_y);
        free(x);
        free(gain);
    }
}

static void test_elementwise(void **state) {
    (void)state;
    enum { N = 1003 };
    float *gate = random_array(N), *up = random_array(N), y[N], sums[N];
    gate[0] = 0;
    gate[1] = -87.5f;
    gate[2] = -1000;
    gate[3] = 1000;
    gate[4] = NAN;
    float *device_gate = to_device(gate, sizeof y), *device_up = to_device(up, sizeof y);
    cuda_swiglu(device_gate, device_up, N, stream);
    from_device(y, device_gate, sizeof y);
    cuda_add(device_gate, device_up, N, stream);
    from_device(sums, device_gate, sizeof y);
    for (size_t i = 0; i < N; i++) {
        double expected = (double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i];
        if (i == 4) {
            assert_true(isnan(y[i]));
            continue;
        }
        if (!(fabs((double)y[i] - expected) <= 8 * ROUNDING * fabs(expected) + 1e-34))
            fail_msg("%zu: swiglu of %.9g and %.9g is %.9g, expected %.9g", i, (double)gate[i], (double)up[i],
                     (double)y[i], expected);
        assert_true(sums[i] == y[i] + up[i]);
    }
    cudaFree(device_gate);
    cudaFree(device_up);
    free(gate);
    free(up);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_products_together),
        cmocka_unit_test(test_gates),
        cmocka_unit_test(test_norms_in_products),
        cmocka_unit_test(test_one_hot),
        cmocka_unit_test(test_odd_groups),
        cmocka_unit_test(test_extreme_activations),
        cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_failing_device),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_elementwise),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
