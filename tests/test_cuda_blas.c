/* The CUDA backend's products of prompts, on the host (tests/cuda_shim, which has a cuBLAS too): FP16 of every tensor
 * type and of activations, products against double precision with the bounds of FP16's roundings, matrices larger than
 * the memory for FP16, outliers, a missing library, and failures. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/dequantize.h"
#include "cuda/products.h"
#include "model/packed_format.h"
#include "tests/cuda_fixture.h"

#define HALF_ROUNDING 0x1p-11 /* relative error of FP16 */
#define ROUNDING      0x1p-24 /* and of an F32 operation */

static CudaDevice device;

/* Products that take the matrix, with memory for so many bytes of its FP16 at a time; 0: as much as there is. */
static void open_products(CudaProducts *p, const Tensor *w, size_t n_tokens, size_t weights_bytes) {
    Error error = {0};
    CudaMatrix *matrix = (CudaMatrix *)w->uploaded;
    device = (CudaDevice){.architecture = 90, .n_multiprocessors = 4, .stream = stream};
    if (cuda_products_open(p, &device, &error) < 0 || cuda_products_reserve(p, &matrix, 1, n_tokens, &error) < 0)
        fail_msg("%s", error.message);
    if (weights_bytes > 0 && p->n_tokens > 0) {
        cudaFree(p->half_weights);
        p->half_weights = (uint16_t *)to_device(NULL, weights_bytes);
        p->weights_bytes = weights_bytes;
    }
}

/* Products of host arrays: y (n_tokens, n_rows). */
static void multiply(CudaProducts *p, const CudaMatrix *w, const float *bias, const float *x, size_t n_tokens,
                     float *y) {
    Error error = {0};
    float *device_x = to_device(x, n_tokens * w->n_columns * sizeof *x);
    float *device_y = to_device(NULL, n_tokens * w->n_rows * sizeof *y);
    float *device_bias = bias == NULL ? NULL : to_device(bias, w->n_rows * sizeof *bias);
    cuda_products(p, &(CudaProduct){*w, device_bias, device_y}, 1, (CudaNorm){0}, device_x, n_tokens);
    from_device(y, device_y, n_tokens * w->n_rows * sizeof *y);
    if (cuda_products_check(p, &error) < 0)
        fail_msg("%s", error.message);
    cudaFree(device_x);
    cudaFree(device_y);
    cudaFree(device_bias);
}

static float largest_of(const float *x, size_t n) {
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    return largest;
}

/* ---- FP16 */

/* The decoder's numbers times a power of two, rounded once, the largest in [2^14, 2^15); from any panel on. */
static void check_halves(TensorType type, size_t n_columns, size_t n_rows, float size) {
    RandomWeights w = random_weights(type, n_columns, n_rows);
    for (size_t i = 0; type == TYPE_F32 && i < n_columns * n_rows; i++)
        ((float *)w.data)[i] = w.decoded[i] *= size;
    CudaWeights weights;
    CudaProducts p;
    size_t stride = cuda_half_stride(n_columns), n_panels = (n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    size_t size_bytes = n_panels * PANEL_ROWS * stride * sizeof(uint16_t);
    uint16_t *halves = malloc(size_bytes);
    float *device_halves = to_device(NULL, size_bytes);
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    open_products(&p, &w.tensor, 16, 0);
    const CudaMatrix *matrix = w.tensor.uploaded;
    float scaled = largest_of(w.decoded, n_columns * n_rows) * matrix->half_factor;
    assert_true(frexpf(matrix->half_factor, &(int){0}) == 0.5f && scaled >= 0x1p14f && scaled < 0x1p15f);
    for (size_t panel = n_panels; panel-- > 0;)
        cuda_dequantize(matrix, panel, 1, (uint16_t *)device_halves + panel * PANEL_ROWS * stride, stream);
    from_device(halves, device_halves, size_bytes);
    for (size_t row = 0; row < n_rows; row++)
        for (size_t column = 0; column < stride; column++) {
            float value = column < n_columns ? w.decoded[row * n_columns + column] : 0;
            uint16_t expected = half_from_float(value * matrix->half_factor);
            if (halves[row * stride + column] != expected)
                fail_msg("%s, %zu x %zu: row %zu, column %zu: %04x, expected %04x", tensor_type_info(type)->name,
                         n_columns, n_rows, row, column, halves[row * stride + column], expected);
        }
    cuda_products_close(&p);
    cuda_weights_close(&weights);
    cudaFree(device_halves);
    free(halves);
    free_weights(&w);
}

static void test_halves(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        size_t block = type == TYPE_I8_GROUPED ? RANDOM_GROUP : tensor_type_info(type)->block_elements;
        cuda_shim_set_seed((unsigned)type);
        check_halves(type, block == 1 ? 41 : block, 37, 1);
        check_halves(type, block == 1 ? 7 : block == 256 ? 768 : 5 * block, 16, 1);
        check_halves(type, block == 1 ? 264 : block == 256 ? 512 : 10 * block, 1, 1);
    }
    check_halves(TYPE_F32, 40, 20, 1e30f); /* all would be infinite, or zero */
    check_halves(TYPE_F32, 40, 20, 1e-25f);
    cuda_shim_set_seed(0);
}

static void test_factors(void **state) {
    (void)state;
    static const float NUMBERS[][2] = {
        {1, 0x1p14f},  {65504, 0x1p-1f}, {0x1.fffffep127f, 0x1p-113f}, {1e-40f, 0x1p114f}, {0, 0x1p114f},
        {INFINITY, 1}, {NAN, 1}};
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        uint32_t bits;
        memcpy(&bits, &NUMBERS[i][0], sizeof bits);
        assert_true(cuda_half_factor(bits & 0x7fffffff) == NUMBERS[i][1]);
    }
}

/* A factor only where FP16 would lose something; zeros behind a row; what is not finite stays so. */
static void test_halved_tokens(void **state) {
    (void)state;
    enum { COLUMNS = 1003, STRIDE = 1008 };
    static const float LARGEST[] = {1, 32767, 0.0625f, 32768, 0.0624f, 1e6f, 1e38f, 1e-30f, 0, INFINITY, NAN};
    static const float FACTORS[] = {1, 1, 1, 0x1p-1f, 0x1p19f, 0x1p-5f, 0x1p-112f, 0x1p114f, 0x1p114f, 1, 1};
    enum { TOKENS = sizeof LARGEST / sizeof *LARGEST };
    static uint16_t halves[TOKENS * STRIDE];
    static float x[TOKENS * COLUMNS], inverses[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < COLUMNS; i++)
            x[t * COLUMNS + i] = isfinite(LARGEST[t]) ? random_float() * LARGEST[t] * 0.5f : random_float();
        x[t * COLUMNS + t * 100] = -LARGEST[t];
    }
    float *device_x = to_device(x, sizeof x), *device_halves = to_device(NULL, sizeof halves);
    float *device_inverses = to_device(NULL, sizeof inverses);
    for (unsigned seed = 0; seed < 3; seed++) {
        cuda_shim_set_seed(seed);
        cuda_halve_tokens(device_x, TOKENS, COLUMNS, (uint16_t *)device_halves, device_inverses, stream);
        from_device(halves, device_halves, sizeof halves);
        from_device(inverses, device_inverses, sizeof inverses);
        for (size_t t = 0; t < TOKENS; t++) {
            assert_true(inverses[t] * FACTORS[t] == 1);
            for (size_t i = 0; i < STRIDE; i++) {
                uint16_t half = halves[t * STRIDE + i];
                float value = i < COLUMNS ? x[t * COLUMNS + i] * FACTORS[t] : 0;
                assert_true(isnan(value) ? (half & 0x7fff) > 0x7c00 : half == half_from_float(value));
                assert_true((half & 0x7fff) < 0x7c00 || !isfinite(LARGEST[t]));
            }
        }
    }
    cuda_shim_set_seed(0);
    cudaFree(device_x);
    cudaFree(device_halves);
    cudaFree(device_inverses);
}

/* ---- Products */

/* Of a product w x of n terms, FP16's two roundings and F32's of n sums and products, in whatever order; and what is
 * lost of numbers that are subnormal in FP16 (dequantize.h): below 2^-39 of the largest weight, below 2^-21 of the
 * largest activation. Where terms are independent, each rounding is off by 2^-11 / sqrt(3) at most in the mean square,
 * and so is the sum of terms, relative to the root of their squares' sum. */
typedef struct Sum {
    double value, bound, squares;
} Sum;

static Sum exact_sum(const float *w, const float *x, size_t n, double largest_w) {
    Sum sum = {0, 0, 0};
    double terms = 0, sum_w = 0, sum_x = 0, largest_x = (double)largest_of(x, n);
    for (size_t i = 0; i < n; i++) {
        double term = (double)w[i] * (double)x[i];
        sum.value += term;
        sum.squares += term * term;
        terms += fabs(term);
        sum_w += fabs((double)w[i]);
        sum_x += fabs((double)x[i]);
    }
    sum.bound = terms * (2 * HALF_ROUNDING + HALF_ROUNDING * HALF_ROUNDING + (double)(n + 4) * ROUNDING) +
                sum_x * 0x1p-39 * largest_w + sum_w * 0x1p-21 * largest_x;
    return sum;
}

static void check_sums(const RandomWeights *w, const float *bias, const float *x, size_t n_tokens, const float *y) {
    size_t n_columns = w->tensor.shape[0], n_rows = w->tensor.shape[1];
    double largest = (double)largest_of(w->decoded, n_columns * n_rows), errors = 0;
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t r = 0; r < n_rows; r++) {
            Sum sum = exact_sum(w->decoded + r * n_columns, x + t * n_columns, n_columns, largest);
            double added = bias == NULL ? 0 : (double)bias[r];
            double error = (double)y[t * n_rows + r] - (sum.value + added);
            errors += error * error / (sum.squares > 0 ? sum.squares : 1);
            if (!(fabs(error) <= sum.bound + fabs(sum.value + added) * ROUNDING))
                fail_msg("%s, %zu x %zu: token %zu of %zu, row %zu: %.9g, expected %.9g +- %.3g",
                         tensor_type_info(w->tensor.type)->name, n_columns, n_rows, t, n_tokens, r,
                         (double)y[t * n_rows + r], sum.value + added, sum.bound);
        }
    double rms = sqrt(errors / (double)(n_tokens * n_rows)), expected = HALF_ROUNDING * sqrt(2.0 / 3);
    if (n_tokens * n_rows > 500 && !(rms <= expected))
        fail_msg("%s, %zu x %zu: errors are %.3g of a sum's size, expected %.3g",
                 tensor_type_info(w->tensor.type)->name, n_columns, n_rows, rms, expected);
}

/* All rows at once, and some at a time: the same bits. */
static void check_product(TensorType type, size_t n_columns, size_t n_rows, size_t n_tokens, float outlier) {
    RandomWeights w = random_weights(type, n_columns, n_rows);
    CudaWeights weights;
    size_t size = n_tokens * n_rows, panel_bytes = PANEL_ROWS * cuda_half_stride(n_columns) * sizeof(uint16_t);
    float *x = random_array(n_tokens * n_columns), *bias = random_array(n_rows), *y = malloc(size * sizeof *y),
          *again = malloc(size * sizeof *y);
    x[n_tokens / 2 * n_columns + n_columns / 2] = outlier;
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    for (size_t panels = 0; panels < 3; panels++) {
        CudaProducts p;
        open_products(&p, &w.tensor, n_tokens + panels, panels * panel_bytes);
        assert_string_equal(cuda_product_path(&p, n_tokens), "f16cublas");
        cuda_shim_set_seed((unsigned)panels);
        multiply(&p, w.tensor.uploaded, n_tokens % 2 == 0 ? bias : NULL, x, n_tokens, panels == 0 ? y : again);
        if (panels > 0)
            assert_memory_equal(again, y, size * sizeof *y);
        cuda_products_close(&p);
    }
    cuda_shim_set_seed(0);
    check_sums(&w, n_tokens % 2 == 0 ? bias : NULL, x, n_tokens, y);
    cuda_weights_close(&weights);
    free(x);
    free(bias);
    free(y);
    free(again);
    free_weights(&w);
}

static void test_products(void **state) {
    (void)state;
    for (TensorType type = TYPE_F32; type < TENSOR_TYPE_COUNT; type++) {
        size_t block = type == TYPE_I8_GROUPED ? RANDOM_GROUP : tensor_type_info(type)->block_elements;
        check_product(type, block == 1 ? 41 : 2 * block, 37, 16, 1);
        check_product(type, block == 1 ? 257 : block == 256 ? 768 : 9 * block, 53, 37, 1e6f);
        check_product(type, block == 1 ? 64 : block, 1, 17, -1e35f);
    }
    check_product(TYPE_Q4_1, 96, 19, 130, 1);
    check_product(TYPE_F16, 1, 16, 128, 1e-20f);
}

/* Matrices of several types and shapes, with and without biases, in one call: as each alone. */
static void test_products_together(void **state) {
    (void)state;
    enum { COLUMNS = 256, N = 4, TOKENS = 20 };
    static const TensorType TYPES[N] = {TYPE_Q4_K, TYPE_Q6_K, TYPE_F16, TYPE_F32};
    static const size_t ROWS[N] = {70, 5, 33, 1};
    Error error = {0};
    RandomWeights w[N];
    CudaWeights weights[N];
    CudaMatrix *matrices[N];
    CudaProduct products[N];
    CudaProducts p;
    float *x = random_array(TOKENS * COLUMNS), *device_x = to_device(x, TOKENS * COLUMNS * sizeof *x);
    float *bias = random_array(70), *device_bias = to_device(bias, 70 * sizeof *bias);
    device = (CudaDevice){.architecture = 80, .stream = stream};
    for (size_t i = 0; i < N; i++) {
        w[i] = random_weights(TYPES[i], COLUMNS, ROWS[i]);
        upload(&weights[i], &w[i].tensor, TENSOR_MATRIX);
        matrices[i] = (CudaMatrix *)w[i].tensor.uploaded;
    }
    assert_int_equal(cuda_products_open(&p, &device, &error), 0);
    assert_int_equal(cuda_products_reserve(&p, matrices, N, TOKENS, &error), 0);
    long n_allocations = cuda_shim_counts().allocations;
    assert_int_equal(cuda_products_reserve(&p, matrices, N, TOKENS - 1, &error), 0);
    assert_int_equal(cuda_shim_counts().allocations, n_allocations + 1); /* to look for new matrices */
    for (size_t i = 0; i < N; i++)
        products[i] = (CudaProduct){*matrices[i], i % 2 == 0 ? device_bias : NULL,
                                    to_device(NULL, TOKENS * ROWS[i] * sizeof(float))};
    cuda_products(&p, products, N, (CudaNorm){0}, device_x, TOKENS);
    for (size_t i = 0; i < N; i++) {
        float y[TOKENS * 70];
        from_device(y, products[i].y, TOKENS * ROWS[i] * sizeof *y);
        check_sums(&w[i], i % 2 == 0 ? bias : NULL, x, TOKENS, y);
        cudaFree(products[i].y);
    }
    cuda_products_close(&p);
    for (size_t i = 0; i < N; i++) {
        cuda_weights_close(&weights[i]);
        free_weights(&w[i]);
    }
    cudaFree(device_x);
    cudaFree(device_bias);
    free(x);
    free(bias);
}

/* What is not finite spoils its own token, and every row of it. */
static void test_extreme_activations(void **state) {
    (void)state;
    enum { COLUMNS = 64, ROWS = 17, TOKENS = 18 };
    RandomWeights w = random_weights(TYPE_Q4_1, COLUMNS, ROWS);
    CudaWeights weights;
    CudaProducts p;
    float *x = random_array(TOKENS * COLUMNS), y[TOKENS * ROWS];
    x[1 * COLUMNS + 40] = NAN;
    x[2 * COLUMNS + 3] = -INFINITY;
    x[2 * COLUMNS + 4] = 1e20f;
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    open_products(&p, &w.tensor, TOKENS, 0);
    multiply(&p, w.tensor.uploaded, NULL, x, TOKENS, y);
    for (size_t i = 0; i < TOKENS * ROWS; i++)
        assert_true(isfinite(y[i]) == (i / ROWS != 1 && i / ROWS != 2));
    cuda_products_close(&p);
    cuda_weights_close(&weights);
    free_weights(&w);
    free(x);
}

/* ---- Which way products go */

/* Few tokens, and all where there is no cuBLAS, have the bits of a token alone. */
static void test_paths(void **state) {
    (void)state;
    enum { COLUMNS = 64, ROWS = 20, TOKENS = 20 };
    RandomWeights w = random_weights(TYPE_Q8_0, COLUMNS, ROWS);
    CudaWeights weights;
    float *x = random_array(TOKENS * COLUMNS), y[TOKENS * ROWS], alone[TOKENS * ROWS];
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    for (int has_blas = 0; has_blas < 2; has_blas++) {
        CudaProducts p;
        cuda_shim_set_blas(has_blas == 1);
        size_t bytes_before = cuda_shim_counts().device_bytes;
        open_products(&p, &w.tensor, TOKENS, 0);
        assert_int_equal(cuda_shim_counts().device_bytes > bytes_before, has_blas);
        assert_string_equal(cuda_product_path(&p, CUDA_BLAS_TOKENS - 1), "f32");
        assert_string_equal(cuda_product_path(&p, CUDA_BLAS_TOKENS), has_blas ? "f16cublas" : "f32");
        for (size_t t = 0; t < TOKENS; t++)
            multiply(&p, w.tensor.uploaded, NULL, x + t * COLUMNS, 1, alone + t * ROWS);
        for (size_t n_tokens = CUDA_BLAS_TOKENS - 1; n_tokens <= TOKENS; n_tokens++) {
            multiply(&p, w.tensor.uploaded, NULL, x, n_tokens, y);
            bool same = memcmp(y, alone, n_tokens * ROWS * sizeof *y) == 0;
            assert_int_equal(same, !has_blas || n_tokens < CUDA_BLAS_TOKENS);
        }
        cuda_products_close(&p);
    }
    cuda_weights_close(&weights);
    cuda_shim_reset();
    free_weights(&w);
    free(x);
}

/* Whichever call fails: an error, from then on, and no memory stays taken. */
static void test_failures(void **state) {
    (void)state;
    enum { COLUMNS = 64, ROWS = 20, TOKENS = 16 };
    static const cudaError_t FAILURES[] = {cudaErrorLaunchFailure, cudaErrorMemoryAllocation};
    RandomWeights w = random_weights(TYPE_Q4_0, COLUMNS, ROWS);
    CudaWeights weights;
    float *x = random_array(TOKENS * COLUMNS);
    float *device_x = to_device(x, TOKENS * COLUMNS * sizeof *x),
          *device_y = to_device(NULL, TOKENS * ROWS * sizeof *x);
    upload(&weights, &w.tensor, TENSOR_MATRIX);
    CudaMatrix *matrix = (CudaMatrix *)w.tensor.uploaded;
    size_t bytes_before = cuda_shim_counts().device_bytes, n_told_by_cublas = 0;
    device = (CudaDevice){.architecture = 90, .stream = stream};
    for (size_t i = 0; i < 2; i++) {
        bool failed = true;
        for (int n = 1; failed; n++) {
            Error error = {0};
            CudaProducts p;
            matrix->half_factor = 0;
            cuda_shim_fail_after(n, FAILURES[i]);
            int code = cuda_products_open(&p, &device, &error);
            if (code == 0)
                code = cuda_products_reserve(&p, &matrix, 1, TOKENS, &error);
            if (code == 0) {
                cuda_products(&p, &(CudaProduct){*matrix, NULL, device_y}, 1, (CudaNorm){0}, device_x, TOKENS);
                cudaError_t status = cudaGetLastError();
                bool by_cublas = cuda_products_check(&p, &error) < 0;
                n_told_by_cublas += by_cublas && status == cudaSuccess;
                code = by_cublas || status != cudaSuccess ? -1 : 0;
                if (by_cublas)
                    cuda_products(&p, &(CudaProduct){*matrix, NULL, device_y}, 1, (CudaNorm){0}, device_x, TOKENS);
                assert_int_equal(cuda_products_check(&p, &error) < 0, by_cublas);
            }
            failed = cuda_shim_counts().failed;
            assert_int_equal(code < 0, failed);
            cuda_products_close(&p);
            cuda_shim_reset();
            assert_int_equal(cuda_shim_counts().device_bytes, bytes_before);
        }
    }
    assert_int_equal(n_told_by_cublas, 1);
    cudaFree(device_x);
    cudaFree(device_y);
    cuda_weights_close(&weights);
    free_weights(&w);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_factors),
        cmocka_unit_test(test_halved_tokens),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_products_together),
        cmocka_unit_test(test_extreme_activations),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
