/* How the streams of warps, and then the parts of blocks, become one: always in the same order, so that the result is
 * the same to the bit. A part has sums as a warp's lanes hold them, and for each head their exponent and weight. */
#ifndef STOWKV_CUDA_FUSED_MERGE_CUH
#define STOWKV_CUDA_FUSED_MERGE_CUH

#include "cuda/fused_stream.cuh"

#define FUSED_WARPS 8

/* In device memory, one for each split of a head group. */
template <int STEPS, int TILES> struct FusedPart {
    float4 sums[STEPS][TILES][32]; /* of lanes: Stream.sum */
    float exponents[8 * TILES], weights[8 * TILES];
};

/* Shared memory for the warps of a block. */
template <int STEPS, int TILES> struct WarpSums {
    float4 sums[FUSED_WARPS / 2][STEPS][TILES][32];
    float exponents[FUSED_WARPS][8 * TILES], weights[FUSED_WARPS][8 * TILES];
};

/* 2^(exponent - largest), 0 where there is nothing. */
__device__ __forceinline__ float part_factor(float exponent, float largest) {
    return exponent == -INFINITY ? 0 : exp2_fast(exponent - largest);
}

template <int STEPS, int TILES>
__device__ __forceinline__ void write_sums(float4 (*to)[TILES][32], const Stream<STEPS, TILES> *stream, uint32_t lane) {
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            const float *sum = stream->sum[step][n];
            to[step][n][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        }
}

template <int STEPS, int TILES>
__device__ __forceinline__ void add_sums(Stream<STEPS, TILES> *stream, const float4 (*from)[TILES][32], uint32_t lane) {
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            float4 sum = from[step][n][lane];
            stream->sum[step][n][0] += sum.x;
            stream->sum[step][n][1] += sum.y;
            stream->sum[step][n][2] += sum.z;
            stream->sum[step][n][3] += sum.w;
        }
}

/* The stream becomes relative to the largest exponent of all warps. */
template <int STEPS, int TILES>
__device__ __forceinline__ void level_stream(Stream<STEPS, TILES> *stream, const WarpSums<STEPS, TILES> *shared,
                                             uint32_t lane) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int head = 0; head < 2; head++) {
            float largest = -INFINITY;
            for (int i = 0; i < FUSED_WARPS; i++)
                largest = fmaxf(largest, shared->exponents[i][8 * n + 2 * (lane % 4) + head]);
            float factor = part_factor(stream->exponent[n][head], largest);
            stream->exponent[n][head] = largest;
            stream->weight[n][head] *= factor;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                stream->sum[step][n][head] *= factor;
                stream->sum[step][n][head + 2] *= factor;
            }
        }
}

/* The sums of all warps of the block, which lie in four parts in `shared` then. */
template <int STEPS, int TILES>
__device__ __forceinline__ void merge_warps(Stream<STEPS, TILES> *stream, WarpSums<STEPS, TILES> *shared, uint32_t warp,
                                            uint32_t lane) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int head = 0; head < 2; head++) {
#pragma unroll
            for (int mask = 4; mask < 32; mask *= 2)
                stream->weight[n][head] += warp_xor(stream->weight[n][head], mask);
            if (lane < 4)
                shared->exponents[warp][8 * n + 2 * lane + head] = stream->exponent[n][head];
        }
    __syncthreads(); /* and nothing else of shared memory is in use */
    level_stream(stream, shared, lane);
#pragma unroll
    for (int n = 0; n < TILES; n++)
        if (lane < 4) {
            shared->weights[warp][8 * n + 2 * lane] = stream->weight[n][0];
            shared->weights[warp][8 * n + 2 * lane + 1] = stream->weight[n][1];
        }
    if (warp >= FUSED_WARPS / 2)
        write_sums(shared->sums[warp - FUSED_WARPS / 2], stream, lane);
    __syncthreads();
    if (warp < FUSED_WARPS / 2) {
        add_sums(stream, shared->sums[warp], lane);
        write_sums(shared->sums[warp], stream, lane);
    }
    __syncthreads();
}

/* ---- What a thread holds of all sums: float4 number `index` */

__device__ __forceinline__ void add_scaled(float4 *sum, float4 x, float first, float second) {
    sum->x += x.x * first;
    sum->y += x.y * second;
    sum->z += x.z * first;
    sum->w += x.w * second;
}

template <int STEPS, int TILES>
__device__ __forceinline__ float4 sum_of_warps(const WarpSums<STEPS, TILES> *shared, uint32_t index) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < FUSED_WARPS / 2; i++)
        add_scaled(&sum, (&shared->sums[i][0][0][0])[index], 1, 1);
    return sum;
}

template <int STEPS, int TILES>
__device__ __forceinline__ float weight_of_warps(const WarpSums<STEPS, TILES> *shared, uint32_t head) {
    float weight = 0;
    for (int i = 0; i < FUSED_WARPS; i++)
        weight += shared->weights[i][head];
    return weight;
}

/* The heads of float4 `index` are this and the next. */
template <int TILES> __device__ __forceinline__ uint32_t first_head(uint32_t index) {
    return index / 32 % TILES * 8 + index % 4 * 2;
}

/* Stores sums / weights of a head group. */
template <int STEPS, int TILES>
__device__ __forceinline__ void store_out(float *out, // (n_heads, 16 STEPS)
                                          uint32_t n_heads, uint32_t index, float4 sum, float first, float second) {
    uint32_t head = first_head<TILES>(index), step = index / 32 / TILES, g = index % 32 / 4;
    uint32_t even = fragment_value_dim(STEPS, step, g, 0), odd = fragment_value_dim(STEPS, step, g, 1);
    if (head < n_heads) {
        out[head * 16 * STEPS + even] = sum.x / first;
        out[head * 16 * STEPS + odd] = sum.z / first;
    }
    if (head + 1 < n_heads) {
        out[(head + 1) * 16 * STEPS + even] = sum.y / second;
        out[(head + 1) * 16 * STEPS + odd] = sum.w / second;
    }
}

/* Of a block whose work is all of it. */
template <int STEPS, int TILES>
__device__ __forceinline__ void finish_alone(const WarpSums<STEPS, TILES> *shared, float *out, uint32_t n_heads,
                                             uint32_t thread) {
    for (uint32_t index = thread; index < STEPS * TILES * 32; index += FUSED_WARPS * 32) {
        uint32_t head = first_head<TILES>(index);
        store_out<STEPS, TILES>(out, n_heads, index, sum_of_warps(shared, index), weight_of_warps(shared, head),
                                weight_of_warps(shared, head + 1));
    }
}

template <int STEPS, int TILES>
__device__ __forceinline__ void write_part(FusedPart<STEPS, TILES> *part, const WarpSums<STEPS, TILES> *shared,
                                           uint32_t thread) {
    for (uint32_t index = thread; index < STEPS * TILES * 32; index += FUSED_WARPS * 32)
        (&part->sums[0][0][0])[index] = sum_of_warps(shared, index);
    if (thread < 8 * TILES) {
        float largest = -INFINITY;
        for (int i = 0; i < FUSED_WARPS; i++)
            largest = fmaxf(largest, shared->exponents[i][thread]);
        part->exponents[thread] = largest;
        part->weights[thread] = weight_of_warps(shared, thread);
    }
}

/* Puts the parts of all splits together, by one block. */
template <int STEPS, int TILES>
__device__ __forceinline__ void merge_parts(const FusedPart<STEPS, TILES> *parts, uint32_t n_parts, float *out,
                                            uint32_t n_heads, uint32_t thread) {
    for (uint32_t index = thread; index < STEPS * TILES * 32; index += FUSED_WARPS * 32) {
        uint32_t head = first_head<TILES>(index);
        float first_largest = -INFINITY, second_largest = -INFINITY, first_weight = 0, second_weight = 0;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
        for (uint32_t i = 0; i < n_parts; i++) {
            first_largest = fmaxf(first_largest, parts[i].exponents[head]);
            second_largest = fmaxf(second_largest, parts[i].exponents[head + 1]);
        }
#pragma unroll 4
        for (uint32_t i = 0; i < n_parts; i++) {
            float first = part_factor(parts[i].exponents[head], first_largest);
            float second = part_factor(parts[i].exponents[head + 1], second_largest);
            first_weight += parts[i].weights[head] * first;
            second_weight += parts[i].weights[head + 1] * second;
            add_scaled(&sum, (&parts[i].sums[0][0][0])[index], first, second);
        }
        store_out<STEPS, TILES>(out, n_heads, index, sum, first_weight, second_weight);
    }
}

#endif
