/* For tests of CUDA kernels on the simulated GPU: a stream, arrays there and back, uploaded weights. */
#ifndef STOWKV_CUDA_FIXTURE_H
#define STOWKV_CUDA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/weights.h"
#include "tests/cuda_shim/shim.h"
#include "tests/random_weights.h"

static inline float *to_device(const void *host, size_t size_bytes) {
    void *memory;
    assert_int_equal(cudaMalloc(&memory, size_bytes), cudaSuccess);
    if (host != NULL)
        assert_int_equal(cudaMemcpy(memory, host, size_bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return memory;
}

static inline void from_device(void *host, const float *memory, size_t size_bytes) {
    assert_int_equal(cudaMemcpy(host, memory, size_bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static ThreadPool *pool;
static cudaStream_t stream;

static inline int set_up(void **state) {
    Error error = {0};
    (void)state;
    assert_int_equal(thread_pool_open(&pool, 2, &error), 0);
    assert_int_equal(cudaStreamCreate(&stream), cudaSuccess);
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    thread_pool_close(pool);
    cudaStreamDestroy(stream);
    assert_int_equal(cuda_shim_counts().device_bytes, 0);
    return 0;
}

static inline float *random_array(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float() * (random_bits() % 16 == 0 ? 30.0f : 1.0f);
    return x;
}

/* A few panels at a time. */
static inline void upload(CudaWeights *weights, Tensor *tensor, TensorUse use) {
    Error error = {0};
    cuda_weights_open(weights, pool, stream);
    weights->piece_bytes = 10000;
    if (cuda_weights_announce(weights, &tensor, 1, use, &error) < 0 ||
        cuda_weights_upload(weights, &tensor, 1, use, &error) < 0 || cuda_weights_ready(weights, &error) < 0)
        fail_msg("%s", error.message);
}

#endif
