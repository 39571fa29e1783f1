/* A query head spread over a warp, and how it is turned: rotated as rotated codecs are, or back by RoPE for shifted
 * runs. */
#ifndef STOWKV_CUDA_QUERY_HEAD_CUH
#define STOWKV_CUDA_QUERY_HEAD_CUH

#include "base/rope.h"
#include "cuda/primitives.cuh"

constexpr HOST_DEVICE bool is_power_of_two_steps(int steps) {
    return (steps & (steps - 1)) == 0;
}

/* Elements lane + 32 i of a head of STEPS * 16. */
template <int STEPS> struct HeadPart {
    static constexpr int n = (STEPS + 1) / 2;
    float x[n];
};

/* The orthonormal Walsh-Hadamard transform (kv_rotate). */
template <int STEPS> __device__ __forceinline__ void rotate_head(HeadPart<STEPS> *part, uint32_t lane) {
    float shrink = 1 / sqrtf(16.0f * STEPS);
#pragma unroll
    for (int i = 0; i < part->n; i++) {
        float x = part->x[i] * shrink;
#pragma unroll
        for (int mask = 1; mask < 32; mask *= 2) {
            float other = warp_xor(x, mask);
            x = lane & (uint32_t)mask ? other - x : x + other;
        }
        part->x[i] = x;
    }
#pragma unroll
    for (int half = 1; half < part->n; half *= 2)
#pragma unroll
        for (int i = 0; i < part->n; i++)
            if ((i & half) == 0) {
                float a = part->x[i], b = part->x[i + half];
                part->x[i] = a + b;
                part->x[i + half] = a - b;
            }
}

/* Element `dim` of a head (head_dim), turned as rope_rotate() does. */
template <int STEPS>
__device__ __forceinline__ float turned_element(const float *q, uint32_t dim, RopePairing pairing,
                                                const float *rotation) { // (head_dim / 2, 2)
    uint32_t half = 8 * STEPS, pair = pairing == ROPE_INTERLEAVED ? dim / 2 : dim % half;
    bool is_first = pairing == ROPE_INTERLEAVED ? dim % 2 == 0 : dim < half;
    uint32_t partner = pairing == ROPE_INTERLEAVED ? dim ^ 1 : is_first ? dim + half : dim - half;
    float cosine = rotation[2 * pair], sine = rotation[2 * pair + 1], x = q[dim], other = q[partner];
    return is_first ? x * cosine - other * sine : other * sine + x * cosine;
}

#endif
