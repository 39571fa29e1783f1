/* silu(gate) * up, of products that a kernel has just made and of those in memory. */
#ifndef STOWKV_CUDA_SWIGLU_CUH
#define STOWKV_CUDA_SWIGLU_CUH

#include "cuda/primitives.cuh"

__device__ __forceinline__ float swiglu(float gate, float up) {
    return gate / (1.0f + expf(fminf(88.0f, -gate))) * up;
}

#endif
