/* Decoding of every tensor type to F32, compiled once for each instruction set: codes are unpacked to bytes, then
 * scaled a vector at a time. The formulas and the order of their roundings are GGML's, so the results are bit-identical
 * to its reference and to each other; hence no fused multiply-add here (-ffp-contract=off). */
#include "model/base/block_decode.h"

#include "model/base/simd.h"

typedef struct {
    uint16_t d;
    uint8_t codes[16];
} BlockQ4_0;

typedef struct {
    uint16_t d, m;
    uint8_t codes[16];
} BlockQ4_1;

typedef struct {
    uint16_t d;
    uint8_t high[4]; /* bit 4 of code j is bit j */
    uint8_t codes[16];
} BlockQ5_0;

typedef struct {
    uint16_t d, m;
    uint8_t high[4];
    uint8_t codes[16];
} BlockQ5_1;

typedef struct {
    uint16_t d;
    int8_t codes[32];
} BlockQ8_0;

/* The K formats: 256 numbers with a scale and a minimum for each 16 or 32, themselves quantized. */
typedef struct {
    uint8_t scales[16]; /* low half: scale, high half: minimum */
    uint8_t codes[64];
    uint16_t d, d_min;
} BlockQ2_K;

typedef struct {
    uint8_t high[32];
    uint8_t codes[64];
    uint8_t scales[12];
    uint16_t d;
} BlockQ3_K;

typedef struct {
    uint16_t d, d_min;
    uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
    uint8_t codes[128];
} BlockQ4_K;

typedef struct {
    uint16_t d, d_min;
    uint8_t scales[12];
    uint8_t high[32];
    uint8_t codes[128];
} BlockQ5_K;

typedef struct {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d;
} BlockQ6_K;

#define INLINE static inline __attribute__((always_inline))

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

/* 16 bytes in a register. Loops over bytes would do in principle, but GCC 12 unrolls those of known length before it
 * tries to vectorize them, and then fails to: 8 times slower. */
typedef uint8_t Bytes __attribute__((vector_size(16)));

INLINE Bytes bytes_load(const uint8_t *from) {
    Bytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return bytes;
}

INLINE void bytes_store(uint8_t *to, Bytes bytes) {
    memcpy(to, &bytes, sizeof bytes);
}

/* The low and the high half of 16 bytes, one after the other. */
INLINE void unpack_nibbles(const uint8_t packed[16], uint8_t codes[32]) {
    Bytes bytes = bytes_load(packed);
    bytes_store(codes, bytes & 15);
    bytes_store(codes + 16, bytes >> 4);
}

/* Adds each code's fifth bit: bit j % 8 of byte j / 8 belongs to code j. */
INLINE void add_fifth_bits(const uint8_t high[4], uint8_t codes[32]) {
    const Bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    for (int half = 0; half < 2; half++) {
        uint8_t a = high[half * 2], b = high[half * 2 + 1];
        Bytes spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
        Bytes fifth = (Bytes)((spread & bit) != 0) & 16;
        bytes_store(codes + half * 16, bytes_load(codes + half * 16) | fifth);
    }
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

/* In Q2_K and Q3_K a "part" is 16 numbers with one scale; its 2-bit codes share bytes with three other parts. */
INLINE void unpack_two_bits(const uint8_t packed[64], int part, uint8_t codes[16]) {
    const uint8_t *bytes = packed + part / 8 * 32 + part % 2 * 16;
    bytes_store(codes, bytes_load(bytes) >> (uint8_t)(part / 2 % 4 * 2) & 3);
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
        const uint8_t *high = block->high + part % 2 * 16;
        uint8_t codes[16];
        unpack_two_bits(block->codes, part, codes);
        bytes_store(codes, bytes_load(codes) | (bytes_load(high) >> (uint8_t)(part / 2) & 1) << 2);
        int low_scale = block->scales[part % 8] >> part / 8 * 4 & 15;
        int high_scale = block->scales[8 + part % 4] >> part / 4 * 2 & 3;
        scale_codes(codes, 16, -4, d * (float)((low_scale | high_scale << 4) - 32), out + part * 16);
    }
}

/* In Q4_K and Q5_K a part is 32 numbers; its scale and minimum have 6 bits each, packed into 12 bytes for all 8 parts
 * (GGML's get_scale_min_k4). */
INLINE void scale_and_minimum(const uint8_t scales[12], int part, int *scale, int *minimum) {
    if (part < 4) {
        *scale = scales[part] & 63;
        *minimum = scales[part + 4] & 63;
    } else {
        *scale = (scales[part + 4] & 15) | scales[part - 4] >> 6 << 4;
        *minimum = scales[part + 4] >> 4 | scales[part] >> 6 << 4;
    }
}

/* The blocks of Q4_K and Q5_K; `high` is NULL where codes have no fifth bit. */
INLINE void block_k_with_minima(float d, float d_min, const uint8_t scales[12], const uint8_t *packed,
                                const uint8_t *high, float *out) {
    for (int part = 0; part < 8; part++) {
        int scale, minimum;
        uint8_t codes[32];
        scale_and_minimum(scales, part, &scale, &minimum);
        for (int j = 0; j < 32; j += 16) {
            Bytes bytes = bytes_load(packed + part / 2 * 32 + j) >> (uint8_t)(part % 2 * 4) & 15;
            if (high != NULL)
                bytes |= (bytes_load(high + j) >> (uint8_t)part & 1) << 4;
            bytes_store(codes + j, bytes);
        }
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
        const uint8_t *low = block->low + part / 8 * 64 + part % 4 * 16;
        const uint8_t *high = block->high + part / 8 * 32 + part % 2 * 16;
        Bytes low_bits = bytes_load(low) >> (uint8_t)(part / 4 % 2 * 4) & 15;
        Bytes high_bits = bytes_load(high) >> (uint8_t)(part / 2 % 4 * 2) & 3;
        uint8_t codes[16];
        bytes_store(codes, low_bits | high_bits << 4);
        scale_codes(codes, 16, -32, d * (float)block->scales[part], out + part * 16);
    }
}

static void decode_f32(const Tensor *tensor, size_t first, size_t n, float *out) {
    memcpy(out, tensor->data + first * sizeof *out, n * sizeof *out);
}

static void decode_f16(const Tensor *tensor, size_t first, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)tensor->data + first;
    size_t whole = n / VEC_LANES * VEC_LANES;
    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(out + i, vec_load_half(halves + i));
    for (size_t i = whole; i < n; i++)
        out[i] = half_to_float(halves[i]);
}

static void decode_bf16(const Tensor *tensor, size_t first, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)tensor->data + first;
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_float(halves[i]);
}

static void decode_i8_grouped(const Tensor *tensor, size_t first, size_t n, float *out) {
    const int8_t *codes = (const int8_t *)tensor->data + first;
    const float *scales = tensor->scales + first / tensor->group;
    for (size_t i = 0; i < n; i += tensor->group)
        for (size_t j = 0; j < tensor->group; j++)
            out[i + j] = (float)codes[i + j] * scales[i / tensor->group];
}

#define DEFINE_BLOCK_DECODER(name, Block, n_elements)                                                                  \
    static void decode_##name(const Tensor *tensor, size_t first, size_t n, float *out) {                              \
        const Block *blocks = (const Block *)(const void *)tensor->data + first / n_elements;                          \
        for (size_t i = 0; i < n / n_elements; i++)                                                                    \
            block_##name(blocks + i, out + i * n_elements);                                                            \
    }

DEFINE_BLOCK_DECODER(q4_0, BlockQ4_0, 32)
DEFINE_BLOCK_DECODER(q4_1, BlockQ4_1, 32)
DEFINE_BLOCK_DECODER(q5_0, BlockQ5_0, 32)
DEFINE_BLOCK_DECODER(q5_1, BlockQ5_1, 32)
DEFINE_BLOCK_DECODER(q8_0, BlockQ8_0, 32)
DEFINE_BLOCK_DECODER(q2_k, BlockQ2_K, 256)
DEFINE_BLOCK_DECODER(q3_k, BlockQ3_K, 256)
DEFINE_BLOCK_DECODER(q4_k, BlockQ4_K, 256)
DEFINE_BLOCK_DECODER(q5_k, BlockQ5_K, 256)
DEFINE_BLOCK_DECODER(q6_k, BlockQ6_K, 256)

TensorDecode *const SIMD_NAME(tensor_decoders)[TENSOR_TYPE_COUNT] = {
    [TYPE_F32] = decode_f32,   [TYPE_F16] = decode_f16,
    [TYPE_BF16] = decode_bf16, [TYPE_Q4_0] = decode_q4_0,
    [TYPE_Q4_1] = decode_q4_1, [TYPE_Q5_0] = decode_q5_0,
    [TYPE_Q5_1] = decode_q5_1, [TYPE_Q8_0] = decode_q8_0,
    [TYPE_Q2_K] = decode_q2_k, [TYPE_Q3_K] = decode_q3_k,
    [TYPE_Q4_K] = decode_q4_k, [TYPE_Q5_K] = decode_q5_k,
    [TYPE_Q6_K] = decode_q6_k, [TYPE_I8_GROUPED] = decode_i8_grouped,
};
