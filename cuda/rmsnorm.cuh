/* RMSNorm of a token by a block of threads, (x * gain) / sqrt(mean(x^2) + eps), rounded alike wherever it is done: by a
 * kernel of its own (elements.cu), or by products that normalise what they read (matvec.cu). Thread t has four numbers
 * from 4 t on, and from each 4 * norm_threads further on; it adds their squares in this order. */
#ifndef STOWKV_CUDA_RMSNORM_CUH
#define STOWKV_CUDA_RMSNORM_CUH

#include "cuda/primitives.cuh"

constexpr int norm_threads = 256;

__device__ __forceinline__ float add_squares(float4 x, float squares) {
    squares = fmaf(x.x, x.x, squares);
    squares = fmaf(x.y, x.y, squares);
    squares = fmaf(x.z, x.z, squares);
    return fmaf(x.w, x.w, squares);
}

/* What x * gain is multiplied with; `squares` are the thread's of n in all. Called by all threads of the block. */
__device__ __forceinline__ float norm_scale(float squares, float eps, size_t n) {
    constexpr int n_warps = norm_threads / 32;
    CUDA_SHARED(float, warp_squares, [n_warps]);
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0)
        warp_squares[threadIdx.x / 32] = squares;
    __syncthreads();
    float sum = warp_squares[0];
#pragma unroll
    for (int i = 1; i < n_warps; i++)
        sum += warp_squares[i];
    return 1.0f / sqrtf(sum / (float)n + eps);
}

#endif
