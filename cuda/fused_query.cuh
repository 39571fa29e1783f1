/* The query heads of a KV head as second operands of mma_16x8x16(), in FP16, and what is computed of them once: turned
 * for shifted runs, rotated for rotated keys, the sums of blocks for keys with minima. A head is divided by a power of
 * two that makes its largest magnitude less than 1, so that no product with a scale by channel overflows. */
#ifndef STOWKV_CUDA_FUSED_QUERY_CUH
#define STOWKV_CUDA_FUSED_QUERY_CUH

#include "cuda/attention.h"
#include "cuda/query_head.cuh"

enum QueryVariant { QUERY_PLAIN, QUERY_ROTATED, QUERY_SHIFTED, QUERY_VARIANTS };

/* Of STEPS * 16 elements and HEADS heads, a multiple of 8. */
template <int STEPS, int HEADS> struct FusedQuery {
    static constexpr int blocks = (STEPS + 1) / 2;
    /* of tile, block and lane 4 g + j: elements of head g for steps 2 block (x, y) and 2 block + 1 (z, w) */
    uint4 fragments[QUERY_VARIANTS][HEADS / 8][blocks][32];
    float sums[QUERY_VARIANTS][blocks][HEADS]; /* of the elements of a block */
    float units[QUERY_VARIANTS][HEADS];        /* what scores are to be multiplied with */
};

/* Where element `dim` of a head is among those of its tile, in halves: fragment_key_dim() puts four or eight in a row.
 */
template <int STEPS> __device__ __forceinline__ uint32_t query_half(uint32_t head, uint32_t dim) {
    uint32_t block = dim / 32, within = block == STEPS / 2 ? dim % 16 / 4 * 8 + dim % 4 : dim % 32;
    return (block * 8 + head % 8) * 32 + within;
}

template <int STEPS, int HEADS>
__device__ __forceinline__ void store_query(FusedQuery<STEPS, HEADS> *query, QueryVariant variant, uint32_t head,
                                            uint32_t lane, const HeadPart<STEPS> &part) {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < part.n; i++)
        largest = fmaxf(largest, fabsf(part.x[i]));
    uint32_t exponent = f32_bits(warp_max(largest)) >> 23;
    exponent = exponent < 252 ? exponent : 252;
    float shrink = f32_from_bits((253 - exponent) << 23); /* below 1, for magnitudes below 2^(exponent - 126) */
    uint16_t *halves = reinterpret_cast<uint16_t *>(query->fragments[variant][head / 8]);
    if (lane == 0)
        query->units[variant][head] = f32_from_bits((exponent + 1) << 23);
#pragma unroll
    for (int i = 0; i < part.n; i++) {
        float x = part.x[i] * shrink, sum = warp_sum(x);
        if (lane == 0)
            query->sums[variant][i][head] = sum;
        if (lane + 32 * i < 16 * STEPS)
            halves[query_half<STEPS>(head, lane + 32 * i)] = f32_to_half(x);
    }
}

/* All variants of a head, by a warp. Scores come out in units of log2. Heads that are not there (q is NULL) are 0. */
template <int STEPS, int HEADS>
__device__ __forceinline__ void prepare_head(FusedQuery<STEPS, HEADS> *query, uint32_t head, uint32_t lane,
                                             const float *q, // (head_dim), or NULL
                                             RopePairing pairing,
                                             const float *shift_rotation) { // (head_dim / 2, 2), or NULL
    const float unit = 1.44269504f / sqrtf(16.0f * STEPS);
    HeadPart<STEPS> part;
#pragma unroll
    for (int i = 0; i < part.n; i++)
        part.x[i] = q != NULL && lane + 32 * i < 16 * STEPS ? q[lane + 32 * i] * unit : 0;
    store_query(query, QUERY_PLAIN, head, lane, part);
    if constexpr (is_power_of_two_steps(STEPS)) {
        rotate_head<STEPS>(&part, lane);
        store_query(query, QUERY_ROTATED, head, lane, part);
    }
    if (shift_rotation == NULL)
        return;
#pragma unroll
    for (int i = 0; i < part.n; i++)
        part.x[i] = q != NULL && lane + 32 * i < 16 * STEPS
                        ? turned_element<STEPS>(q, lane + 32 * i, pairing, shift_rotation) * unit
                        : 0;
    store_query(query, QUERY_SHIFTED, head, lane, part);
}

#endif
