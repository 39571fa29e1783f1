/* Single numbers of fragment records, read by a thread that wants just those: what moves records between tiers, and
 * attention without tensor cores. Each gives the bits that the codec's decoder gives. */
#ifndef STOWKV_CUDA_FRAGMENTS_CUH
#define STOWKV_CUDA_FRAGMENTS_CUH

#include "cuda/fragments.h"
#include "cuda/primitives.cuh"
#include "kvcache/codec/fp8.h"
#include "kvcache/codec/half.h"

/* KV_NF4_LEVELS, where a thread can index them: static, or each thread makes a table of its own. */
__device__ __forceinline__ float nf4_level(uint32_t code) {
    static const float levels[16] = {KV_NF4_LEVEL_LIST};
    return levels[code];
}

__device__ __forceinline__ float fragment_scale(const FragmentShape *shape, const uint8_t *record, uint32_t token,
                                                uint32_t dim) {
    const uint8_t *scales = record + shape->scales;
    uint32_t index = fragment_scale_index(shape, token, dim);
    if (shape->kind != KV_CODE_NF4)
        return half_load(scales + index * sizeof(uint16_t));
    uint8_t code = scales[FRAGMENT_NF4_AT + index];
    return code == KV_NF4_SCALE_NAN ? half_to_float(HALF_NAN) : half_load(scales) + half_load(scales + 2) * (float)code;
}

/* Element `dim` of a token of the record; still rotated where the record is. */
__device__ __forceinline__ float fragment_number(const FragmentShape *shape, const uint8_t *record, uint32_t token,
                                                 uint32_t dim) {
    if (shape->kind == KV_CODE_HALF)
        return half_load(record + ((size_t)token * shape->head_dim + dim) * sizeof(uint16_t));
    uint32_t code = fragment_code(shape, record, token, dim);
    float scale = fragment_scale(shape, record, token, dim);
    if (shape->kind == KV_CODE_E4M3)
        return scale * fp8_to_float((uint8_t)code);
    if (shape->kind == KV_CODE_NF4)
        return scale * nf4_level(code);
    float number = scale * (float)(shape->factor * (int)code - shape->bias);
    if (shape->has_minima)
        number += half_load(record + shape->minima + fragment_scale_index(shape, token, dim) * sizeof(uint16_t));
    return number;
}

#endif
