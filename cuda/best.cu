/* See best.h. */
#include "cuda/best.h"

#include "cuda/primitives.cuh"

namespace {

constexpr int n_threads = 256, n_warps = n_threads / 32, thread_logits = 4;
constexpr CudaBest not_finite = ~0ull;

/* Bits of a float, with all of a negative one's turned, and the sign of the others, are in the order of numbers. */
__device__ __forceinline__ CudaBest order_of(float logit, size_t id) {
    uint32_t bits = f32_bits(logit + 0.0f); /* -0 becomes 0 */
    if ((bits & 0x7fffffff) >= 0x7f800000)
        return not_finite;
    bits ^= bits >> 31 != 0 ? 0xffffffff : 0x80000000;
    return (CudaBest)bits << 32 | (0xffffffff - (uint32_t)id);
}

__device__ __forceinline__ CudaBest better(CudaBest a, CudaBest b) {
    return a > b ? a : b;
}

__global__ void __launch_bounds__(n_threads) find_best(const float *logits, size_t n, CudaBest *best) {
    CUDA_SHARED(CudaBest, bests, [n_warps]);
    CudaBest found = 0; /* below that of any logit */
    for (int i = 0; i < thread_logits; i++) {
        size_t id = ((size_t)blockIdx.x * thread_logits + i) * n_threads + threadIdx.x;
        if (id < n)
            found = better(found, order_of(logits[id], id));
    }
    for (int mask = 16; mask > 0; mask /= 2)
        found = better(found, warp_xor(found, mask));
    if (threadIdx.x % 32 == 0)
        bests[threadIdx.x / 32] = found;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int warp = 1; warp < n_warps; warp++)
        found = better(found, bests[warp]);
    atomicMax(best, found);
}

} // namespace

extern "C" void cuda_find_best(const float *logits, size_t n, CudaBest *best, cudaStream_t stream) {
    constexpr size_t block_logits = (size_t)n_threads * thread_logits;
    cudaMemsetAsync(best, 0, sizeof *best, stream);
    CUDA_LAUNCH(find_best, dim3((unsigned)((n + block_logits - 1) / block_logits)), dim3(n_threads), 0, stream, logits,
                n, best);
}

extern "C" int32_t cuda_best_token(CudaBest best) {
    return best == not_finite ? -1 : (int32_t)(0xffffffff - (uint32_t)best);
}
