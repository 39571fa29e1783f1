/* Scales and minima of a strip, which a warp copies to shared memory while it waits for the codes, and reads there in
 * the order of its products: by channel where keys have them so, else for the tokens and the block that a lane has. */
#ifndef STOWKV_CUDA_FUSED_SCALES_CUH
#define STOWKV_CUDA_FUSED_SCALES_CUH

#include "cuda/fragments.h"
#include "cuda/primitives.cuh"

/* Of one side, as they lie in the record, but of this strip alone. */
template <int STEPS> struct StripScales {
    static constexpr int chunks =
        2 * STEPS;                        /* of 16 bytes: a number by channel, or of 32 tokens for each block of 32 */
    uint4 scales[chunks], minima[chunks]; /* nf4: its codes of scales, and behind them its constants */
};

/* Where chunk `i` of n that a part has for a strip comes from; by token a block has `per_block` of them a strip. */
__device__ __forceinline__ uint32_t chunk_offset(const FragmentShape *shape, uint32_t strip, uint32_t i,
                                                 uint32_t per_block) {
    return ((i / per_block * (shape->n_tokens / FRAGMENT_STRIP) + strip) * per_block + i % per_block) * 16;
}

/* Starts the copy. No lane may still be reading what was there before. */
template <int STEPS>
__device__ __forceinline__ void copy_scales(StripScales<STEPS> *to, const FragmentShape *shape, const uint8_t *record,
                                            uint32_t strip, uint32_t lane) {
    const uint8_t *scales = record + shape->scales, *minima = record + shape->minima;
    if (shape->kind == KV_CODE_NF4) {
        uint32_t n = 2 * shape->n_blocks;
        if (lane <= n)
            copy_16_async(&to->scales[lane],
                          lane == n ? scales : scales + FRAGMENT_NF4_AT + chunk_offset(shape, strip, lane, 2), true);
        return;
    }
    uint32_t n = shape->by_channel ? 2 * STEPS : 4 * shape->n_blocks;
    uint32_t at = shape->by_channel ? lane * 16 : chunk_offset(shape, strip, lane, 4);
    if (lane < n) {
        copy_16_async(&to->scales[lane], scales + at, true);
        if (shape->has_minima)
            copy_16_async(&to->minima[lane], minima + at, true);
    }
}

/* Four halves for the tokens g, 8 + g, 16 + g, 24 + g of the strip. */
__device__ __forceinline__ void token_halves(const uint4 *part, uint32_t block, uint32_t g, float out[4]) {
    uint2 halves = reinterpret_cast<const uint2 *>(part)[block * 8 + g];
    out[0] = half2_low(halves.x);
    out[1] = half2_high(halves.x);
    out[2] = half2_low(halves.y);
    out[3] = half2_high(halves.y);
}

/* Scales of those tokens for the block; `times` is what the kind's codes are to be multiplied with. */
template <int STEPS>
__device__ __forceinline__ void token_scales(const StripScales<STEPS> *from, const FragmentShape *shape, uint32_t block,
                                             uint32_t g, float times, float out[4]) {
    if (shape->kind != KV_CODE_NF4) {
        token_halves(from->scales, block, g, out);
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[i] *= times;
        return;
    }
    uint32_t codes = reinterpret_cast<const uint32_t *>(from->scales)[block * 8 + g];
    uint32_t constants = from->scales[2 * shape->n_blocks].x;
    float minimum = half2_low(constants), step = half2_high(constants);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t code = codes >> 8 * i & 0xff;
        out[i] = code == KV_NF4_SCALE_NAN ? f32_from_bits(0x7fc00000) : minimum + step * (float)code;
    }
}

/* The number that products with a kind's converted codes lack. */
__device__ __forceinline__ float code_unit(KvCodeKind kind) {
    return kind == KV_CODE_E4M3 ? 256.0f : 1.0f;
}

#endif
