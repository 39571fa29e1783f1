/* See turns.h. A block has a token, a thread a pair; in double, as on the host. */
#include "cuda/turns.h"

#include "base/rope.h"
#include "cuda/primitives.cuh"

#define TURN_THREADS 64

__device__ static void fill_turns(const double *frequencies, double position, size_t head_dim, float *rotation) {
    for (size_t i = threadIdx.x; i < head_dim / 2; i += blockDim.x)
        rope_turn(frequencies[i], position, rotation + 2 * i);
}

__global__ void __launch_bounds__(TURN_THREADS)
    turns(const double *frequencies, const size_t *position, size_t head_dim, float *rotation) {
    size_t token = blockIdx.x;
    fill_turns(frequencies, (double)(*position + token), head_dim, rotation + token * head_dim);
}

__global__ void __launch_bounds__(TURN_THREADS)
    turns_back(const CudaCache *cache, size_t layer, const double *frequencies, size_t head_dim, float *rotation) {
    size_t token = blockIdx.x;
    KvPlan plan = kvcache_layer_plan(&cache->layout, layer, cache->n_tokens + token + 1);
    size_t shift = kv_plan_shift(kvcache_layer_policy(&cache->layout, layer), &plan);
    fill_turns(frequencies, -(double)shift, head_dim, rotation + token * head_dim);
}

void cuda_turns(const double *frequencies, const size_t *position, size_t head_dim, size_t n_tokens, float *rotation,
                cudaStream_t stream) {
    CUDA_LAUNCH(turns, dim3((unsigned)n_tokens), dim3(TURN_THREADS), 0, stream, frequencies, position, head_dim,
                rotation);
}

void cuda_turns_back(const CudaCache *cache, size_t layer, const double *frequencies, size_t head_dim, size_t n_tokens,
                     float *rotation, cudaStream_t stream) {
    CUDA_LAUNCH(turns_back, dim3((unsigned)n_tokens), dim3(TURN_THREADS), 0, stream, cache, layer, frequencies,
                head_dim, rotation);
}
