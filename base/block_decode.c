/* Decoding of every tensor type to F32, compiled once for each instruction set: codes are unpacked to bytes, then
 * scaled a vector at a time. The formulas and the order of their roundings are GGML's, so the results are bit-identical
 * to its reference and to each other; hence no fused multiply-add here (-ffp-contract=off). */
#include "base/block_decode.h"

#include "base/block_codes.h"
#include "base/simd/vectors.h"

/* out = scale * (code + bias), for n codes: a multiple of 16. */
INLINE void scale_codes(const uint8_t *codes, int n, int bias, float scale, float *out) {
    for (int j = 0; j < n; j += VEC_LANES)
        vec_store(out + j, vec_mul(vec_set1(scale), vec_add(vec_load_u8(codes + j), vec_set1((float)bias))));
}

/* out = scale * code + minimum, rounded twice. */
INLINE void scale_codes_from(const uint8_t *codes, int n, float scale, float minimum, float *out) {
    for (int j = 0; j < n; j += VEC_LANES)
        vec_store(out + j, vec_add(vec_mul(vec_set1(scale), vec_load_u8(codes + j)), vec_set1(minimum)));
}

INLINE void block_q4_0(const BlockQ4_0 *block, float *out) {
    uint8_t codes[32];
    unpack_nibbles(block->codes, codes);
    scale_codes(codes, 32, -8, half_to_float(block->d), out);
}

INLINE void block_q4_1(const BlockQ4_1 *block, float *out) {
    uint8_t codes[32];
    unpack_nibbles(block->codes, codes);
    scale_codes_from(codes, 32, half_to_float(block->d), half_to_float(block->m), out);
}

INLINE void block_q5_0(const BlockQ5_0 *block, float *out) {
    uint8_t codes[32];
    unpack_nibbles(block->codes, codes);
    add_fifth_bits(block->high, codes);
    scale_codes(codes, 32, -16, half_to_float(block->d), out);
}

INLINE void block_q5_1(const BlockQ5_1 *block, float *out) {
    uint8_t codes[32];
    unpack_nibbles(block->codes, codes);
    add_fifth_bits(block->high, codes);
    scale_codes_from(codes, 32, half_to_float(block->d), half_to_float(block->m), out);
}

INLINE void block_q8_0(const BlockQ8_0 *block, float *out) {
    Vec d = vec_set1(half_to_float(block->d));
    for (int j = 0; j < 32; j += VEC_LANES)
        vec_store(out + j, vec_mul(d, vec_load_i8(block->codes + j)));
}

INLINE void block_q2_k(const BlockQ2_K *block, float *out) {
    float d = half_to_float(block->d), d_min = half_to_float(block->d_min);
    for (int part = 0; part < 16; part++) {
        uint8_t codes[16];
        unpack_two_bits(block->codes, part, codes);
        float scale = d * (float)(block->scales[part] & 15), minimum = d_min * (float)(block->scales[part] >> 4);
        scale_codes_from(codes, 16, scale, -minimum, out + part * 16);
    }
}

INLINE void block_q3_k(const BlockQ3_K *block, float *out) {
    float d = half_to_float(block->d);
    for (int part = 0; part < 16; part++) {
        uint8_t codes[16];
        codes_q3_k(block, part, codes);
        scale_codes(codes, 16, -4, d * (float)scale_q3_k(block, part), out + part * 16);
    }
}

/* The blocks of Q4_K and Q5_K; `high` is NULL where codes have no fifth bit. */
INLINE void block_k_with_minima(float d, float d_min, const uint8_t scales[12], const uint8_t *packed,
                                const uint8_t *high, float *out) {
    for (int part = 0; part < 8; part++) {
        int scale, minimum;
        uint8_t codes[32];
        scale_and_minimum(scales, part, &scale, &minimum);
        codes_k(packed, high, part, codes);
        scale_codes_from(codes, 32, d * (float)scale, -(d_min * (float)minimum), out + part * 32);
    }
}

INLINE void block_q4_k(const BlockQ4_K *block, float *out) {
    block_k_with_minima(half_to_float(block->d), half_to_float(block->d_min), block->scales, block->codes, NULL, out);
}

INLINE void block_q5_k(const BlockQ5_K *block, float *out) {
    block_k_with_minima(half_to_float(block->d), half_to_float(block->d_min), block->scales, block->codes, block->high,
                        out);
}

INLINE void block_q6_k(const BlockQ6_K *block, float *out) {
    float d = half_to_float(block->d);
    for (int part = 0; part < 16; part++) {
        uint8_t codes[16];
        codes_q6_k(block, part, codes);
        scale_codes(codes, 16, -32, d * (float)block->scales[part], out + part * 16);
    }
}

static void decode_F32(const Tensor *tensor, size_t first, size_t n, float *out) {
    memcpy(out, tensor->data + first * sizeof *out, n * sizeof *out);
}

static void decode_F16(const Tensor *tensor, size_t first, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)tensor->data + first;
    size_t whole = n / VEC_LANES * VEC_LANES;
    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(out + i, vec_load_half(halves + i));
    for (size_t i = whole; i < n; i++)
        out[i] = half_to_float(halves[i]);
}

static void decode_BF16(const Tensor *tensor, size_t first, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)tensor->data + first;
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_float(halves[i]);
}

static void decode_I8_GROUPED(const Tensor *tensor, size_t first, size_t n, float *out) {
    const int8_t *codes = (const int8_t *)tensor->data + first;
    const float *scales = tensor->scales + first / tensor->group;
    for (size_t i = 0; i < n; i += tensor->group)
        for (size_t j = 0; j < tensor->group; j++)
            out[i + j] = (float)codes[i + j] * scales[i / tensor->group];
}

#define DEFINE_BLOCK_DECODER(id, block, Block, n_elements)                                                             \
    static void decode_##id(const Tensor *tensor, size_t first, size_t n, float *out) {                                \
        const Block *blocks = (const Block *)(const void *)tensor->data + first / n_elements;                          \
        for (size_t i = 0; i < n / n_elements; i++)                                                                    \
            block(blocks + i, out + i * n_elements);                                                                   \
    }

DEFINE_BLOCK_DECODER(Q4_0, block_q4_0, BlockQ4_0, 32)
DEFINE_BLOCK_DECODER(Q4_1, block_q4_1, BlockQ4_1, 32)
DEFINE_BLOCK_DECODER(Q5_0, block_q5_0, BlockQ5_0, 32)
DEFINE_BLOCK_DECODER(Q5_1, block_q5_1, BlockQ5_1, 32)
DEFINE_BLOCK_DECODER(Q8_0, block_q8_0, BlockQ8_0, 32)
DEFINE_BLOCK_DECODER(Q2_K, block_q2_k, BlockQ2_K, 256)
DEFINE_BLOCK_DECODER(Q3_K, block_q3_k, BlockQ3_K, 256)
DEFINE_BLOCK_DECODER(Q4_K, block_q4_k, BlockQ4_K, 256)
DEFINE_BLOCK_DECODER(Q5_K, block_q5_k, BlockQ5_K, 256)
DEFINE_BLOCK_DECODER(Q6_K, block_q6_k, BlockQ6_K, 256)

#define DECODER(id, ...) [TYPE_##id] = decode_##id,
TensorDecode *const SIMD_NAME(tensor_decoders)[TENSOR_TYPE_COUNT] = {TENSOR_TYPES(DECODER)};
