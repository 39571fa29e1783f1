/* GGML's blocks (ggml-common.h): their layout, and the integers in them. Decoding scales these integers
 * (block_decode.c), packing rearranges them (model/packed_matrix.c). A number is scale * (code - bias), or
 * scale * code + minimum (Q4_1, Q5_1), or scale * code - minimum (Q2_K, Q4_K, Q5_K).
 *
 * A "part" is the run of 16 (Q2_K, Q3_K, Q6_K) or 32 numbers that share a scale in a block of 256. */
#ifndef STOWKV_BLOCK_CODES_H
#define STOWKV_BLOCK_CODES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct BlockQ4_0 {
    uint16_t d;
    uint8_t codes[16];
} BlockQ4_0;

typedef struct BlockQ4_1 {
    uint16_t d, m;
    uint8_t codes[16];
} BlockQ4_1;

typedef struct BlockQ5_0 {
    uint16_t d;
    uint8_t high[4]; /* bit 4 of code j is bit j */
    uint8_t codes[16];
} BlockQ5_0;

typedef struct BlockQ5_1 {
    uint16_t d, m;
    uint8_t high[4];
    uint8_t codes[16];
} BlockQ5_1;

typedef struct BlockQ8_0 {
    uint16_t d;
    int8_t codes[32];
} BlockQ8_0;

/* The K formats: 256 numbers with a scale and a minimum for each part, themselves quantized. */
typedef struct BlockQ2_K {
    uint8_t scales[16]; /* low half: scale, high half: minimum */
    uint8_t codes[64];
    uint16_t d, d_min;
} BlockQ2_K;

typedef struct BlockQ3_K {
    uint8_t high[32];
    uint8_t codes[64];
    uint8_t scales[12];
    uint16_t d;
} BlockQ3_K;

typedef struct BlockQ4_K {
    uint16_t d, d_min;
    uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
    uint8_t codes[128];
} BlockQ4_K;

typedef struct BlockQ5_K {
    uint16_t d, d_min;
    uint8_t scales[12];
    uint8_t high[32];
    uint8_t codes[128];
} BlockQ5_K;

typedef struct BlockQ6_K {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint16_t d;
} BlockQ6_K;

#define BLOCK_INLINE static inline __attribute__((always_inline))

/* 16 bytes in a register. Loops over bytes would do in principle, but GCC 12 unrolls those of known length before it
 * tries to vectorize them, and then fails to: 8 times slower. */
typedef uint8_t BlockBytes __attribute__((vector_size(16)));

BLOCK_INLINE BlockBytes bytes_load(const uint8_t *from) {
    BlockBytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return bytes;
}

BLOCK_INLINE void bytes_store(uint8_t *to, BlockBytes bytes) {
    memcpy(to, &bytes, sizeof bytes);
}

/* The low halves of 16 bytes, then their high halves. */
BLOCK_INLINE void unpack_nibbles(const uint8_t packed[16], uint8_t codes[32]) {
    BlockBytes bytes = bytes_load(packed);
    bytes_store(codes, bytes & 15);
    bytes_store(codes + 16, bytes >> 4);
}

/* Adds each code's fifth bit: bit j % 8 of byte j / 8 belongs to code j. */
BLOCK_INLINE void add_fifth_bits(const uint8_t high[4], uint8_t codes[32]) {
    const BlockBytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    for (int half = 0; half < 2; half++) {
        uint8_t a = high[half * 2], b = high[half * 2 + 1];
        BlockBytes spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
        BlockBytes fifth = (BlockBytes)((spread & bit) != 0) & 16;
        bytes_store(codes + half * 16, bytes_load(codes + half * 16) | fifth);
    }
}

/* The 2-bit codes of a part of Q2_K or Q3_K, which share bytes with three other parts. */
BLOCK_INLINE void unpack_two_bits(const uint8_t packed[64], int part, uint8_t codes[16]) {
    const uint8_t *bytes = packed + part / 8 * 32 + part % 2 * 16;
    bytes_store(codes, bytes_load(bytes) >> (uint8_t)(part / 2 % 4 * 2) & 3);
}

/* Codes with a bias of 4. */
BLOCK_INLINE void codes_q3_k(const BlockQ3_K *block, int part, uint8_t codes[16]) {
    const uint8_t *high = block->high + part % 2 * 16;
    unpack_two_bits(block->codes, part, codes);
    bytes_store(codes, bytes_load(codes) | (bytes_load(high) >> (uint8_t)(part / 2) & 1) << 2);
}

BLOCK_INLINE int scale_q3_k(const BlockQ3_K *block, int part) {
    int low = block->scales[part % 8] >> part / 8 * 4 & 15;
    int high = block->scales[8 + part % 4] >> part / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

/* In Q4_K and Q5_K scale and minimum of a part have 6 bits each, packed into 12 bytes for all 8 parts (GGML's
 * get_scale_min_k4). */
BLOCK_INLINE void scale_and_minimum(const uint8_t scales[12], int part, int *scale, int *minimum) {
    if (part < 4) {
        *scale = scales[part] & 63;
        *minimum = scales[part + 4] & 63;
    } else {
        *scale = (scales[part + 4] & 15) | scales[part - 4] >> 6 << 4;
        *minimum = scales[part + 4] >> 4 | scales[part] >> 6 << 4;
    }
}

/* The codes of a part of Q4_K, or of Q5_K; `high` is NULL where they have no fifth bit. */
BLOCK_INLINE void codes_k(const uint8_t *packed, const uint8_t *high, int part, uint8_t codes[32]) {
    for (int j = 0; j < 32; j += 16) {
        BlockBytes bytes = bytes_load(packed + part / 2 * 32 + j) >> (uint8_t)(part % 2 * 4) & 15;
        if (high != NULL)
            bytes |= (bytes_load(high + j) >> (uint8_t)part & 1) << 4;
        bytes_store(codes + j, bytes);
    }
}

/* Codes with a bias of 32. */
BLOCK_INLINE void codes_q6_k(const BlockQ6_K *block, int part, uint8_t codes[16]) {
    const uint8_t *low = block->low + part / 8 * 64 + part % 4 * 16;
    const uint8_t *high = block->high + part / 8 * 32 + part % 2 * 16;
    BlockBytes low_bits = bytes_load(low) >> (uint8_t)(part / 4 % 2 * 4) & 15;
    BlockBytes high_bits = bytes_load(high) >> (uint8_t)(part / 2 % 4 * 2) & 3;
    bytes_store(codes, low_bits | high_bits << 4);
}

#endif
