/* Codes of a strip in the registers of a warp (cuda/fragments.h has their order): how they are loaded, expanded, and
 * handed to mma_16x8x16() as its first operand. A side of a strip (its keys, or its values) is read in pieces, which
 * all have the same number of words a lane, whatever is stored:
 *
 *     codes    a piece is the strip, or, for more than 8 steps, one of its tiles
 *     rows     a piece is a tile of FP16 rows, or, for more than 8 steps, half of its elements
 *
 * What depends on the width of codes is loading and expanding them, and what depends on their kind is the conversion to
 * FP16: each is a switch that a whole warp takes the same way, outside of the loops over products. */
#ifndef STOWKV_CUDA_FUSED_CODES_CUH
#define STOWKV_CUDA_FUSED_CODES_CUH

#include "cuda/fragments.h"
#include "cuda/primitives.cuh"

/* Of heads of STEPS * 16 elements. Blocks are of 32 elements; the last is half of one where STEPS is odd. */
template <int STEPS> struct Piece {
    static constexpr int blocks = (STEPS + 1) / 2;
    static constexpr int words = 4 * (STEPS < 8 ? STEPS : 8); /* of a lane */
    static constexpr int of_codes = STEPS > 8 ? 2 : 1;        /* pieces of a strip */
    static constexpr int of_rows = 2 * of_codes;
    static constexpr int code_tiles = 2 / of_codes;
    static constexpr int row_blocks = blocks / of_codes;
    static_assert(STEPS <= 8 || STEPS == 16);
};

/* How a kind of code becomes FP16. Codes of 4 bits stay as they are stored, the two quads of a step in a word; others
 * become bytes. */
enum CodeForm { FORM_BYTES, FORM_NIBBLES, FORM_E4M3, FORM_NF4 };

__device__ __forceinline__ CodeForm code_form(KvCodeKind kind, int bits) {
    return kind == KV_CODE_NF4 ? FORM_NF4 : kind == KV_CODE_E4M3 ? FORM_E4M3 : bits == 4 ? FORM_NIBBLES : FORM_BYTES;
}

/* ---- Loading */

/* n words of a lane of a plane, which begins, or goes on after a multiple of four words, at `plane`. */
template <int N> __device__ __forceinline__ void load_lane_words(const uint8_t *plane, int lane, uint32_t *words) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        uint4 four = load_16(plane + (i * FRAGMENT_LANES + lane) * 16);
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
    }
    const uint8_t *behind = plane + N / 4 * FRAGMENT_LANES * 16;
    if constexpr (N % 4 >= 2) {
        uint2 two = load_8(behind + lane * 8);
        words[N / 4 * 4] = two.x;
        words[N / 4 * 4 + 1] = two.y;
        behind += FRAGMENT_LANES * 8;
    }
    if constexpr (N % 2 == 1)
        words[N - 1] = load_4(behind + lane * 4);
}

/* fragment_plane(), of the bits that are left */
constexpr HOST_DEVICE int first_plane(int bits) {
    return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/* Plane after plane, the widest first, into words that follow each other. */
template <int STEPS, int BITS>
__device__ __forceinline__ void load_planes(const uint8_t *strip, int piece, int lane, uint32_t *words) {
    constexpr int plane = first_plane(BITS), n_words = (4 * STEPS * plane + 7) / 8,
                  n = n_words / Piece<STEPS>::of_codes;
    static_assert(Piece<STEPS>::of_codes == 1 || n % 4 == 0);
    load_lane_words<n>(strip + piece * n * FRAGMENT_LANES * 4, lane, words);
    if constexpr (BITS > plane)
        load_planes<STEPS, BITS - plane>(strip + n_words * FRAGMENT_LANES * 4, piece, lane, words + n);
}

template <int STEPS>
__device__ __forceinline__ void load_codes(const uint8_t *strip, int bits, int piece, int lane,
                                           uint32_t words[Piece<STEPS>::words]) {
    switch (bits) {
    case 8:
        return load_planes<STEPS, 8>(strip, piece, lane, words);
    case 7:
        return load_planes<STEPS, 7>(strip, piece, lane, words);
    case 6:
        return load_planes<STEPS, 6>(strip, piece, lane, words);
    case 5:
        return load_planes<STEPS, 5>(strip, piece, lane, words);
    case 4:
        return load_planes<STEPS, 4>(strip, piece, lane, words);
    case 3:
        return load_planes<STEPS, 3>(strip, piece, lane, words);
    case 2:
        return load_planes<STEPS, 2>(strip, piece, lane, words);
    default:
        return load_planes<STEPS, 1>(strip, piece, lane, words);
    }
}

/* ---- Expanding */

/* Adds the planes from bit SHIFT on to the bytes of all quads. */
template <int STEPS, int BITS, int SHIFT>
__device__ __forceinline__ void expand_planes(const uint32_t *words, uint32_t *quads) {
    constexpr int plane = first_plane(BITS - SHIFT), per_word = 8 / plane, n = Piece<STEPS>::words;
    constexpr uint32_t mask = ((1u << plane) - 1) * 0x01010101u << SHIFT;
#pragma unroll
    for (int i = 0; i < n; i++) {
        int right = i % per_word * plane - SHIFT;
        uint32_t word = words[i / per_word];
        uint32_t bits = (right >= 0 ? word >> right : word << -right) & mask;
        quads[i] = SHIFT == 0 ? bits : quads[i] | bits;
    }
    if constexpr (SHIFT + plane < BITS)
        expand_planes<STEPS, BITS, SHIFT + plane>(words + (n + per_word - 1) / per_word, quads);
}

/* To bytes; what are bytes already, or nibbles, stays. A byte is factor * code. */
template <int STEPS>
__device__ __forceinline__ void expand_codes(uint32_t words[Piece<STEPS>::words], int bits, int factor) {
    constexpr int n = Piece<STEPS>::words;
    uint32_t quads[n];
    switch (bits) {
    case 7:
        expand_planes<STEPS, 7, 0>(words, quads);
        break;
    case 6:
        expand_planes<STEPS, 6, 0>(words, quads);
        break;
    case 5:
        expand_planes<STEPS, 5, 0>(words, quads);
        break;
    case 3:
        expand_planes<STEPS, 3, 0>(words, quads);
        break;
    case 2:
        expand_planes<STEPS, 2, 0>(words, quads);
        break;
    case 1:
        expand_planes<STEPS, 1, 0>(words, quads);
#pragma unroll
        for (int i = 0; i < n; i++)
            quads[i] <<= factor - 1;
        break;
    default:
        return;
    }
#pragma unroll
    for (int i = 0; i < n; i++)
        words[i] = quads[i];
}

/* ---- Converting */

/* 1024 + byte is an FP16 number whose last bits are the byte's, and so is 1024 + 16 * nibble: what is to be added to
 * make them byte - bias, and, divided by 16, nibble - bias. */
struct CodeOffsets {
    uint32_t bytes, high_nibbles;
};

__device__ __forceinline__ CodeOffsets code_offsets(int bias) {
    CodeOffsets offsets = {(uint32_t)(0xe400 + bias) * 0x10001u,
                           half2_from_f32((float)(-64 - bias), (float)(-64 - bias))};
    return offsets;
}

#define HALF_1024    0x64646464u /* of bytes that stand above another */
#define HALF_16TH    0x2c002c00u
#define LOW_PAIR     0x4140u /* selectors: bytes 0 and 1, or 2 and 3, each below one of another word */
#define HIGH_PAIR    0x4342u
#define LOW_NIBBLES  0x0f0f0f0fu
#define HIGH_NIBBLES 0xf0f0f0f0u

/* Two bytes as 2^-8 times the numbers that they are in E4M3: sign, exponent and mantissa stand in the same order. */
__device__ __forceinline__ uint32_t half2_from_e4m3(uint32_t quad, uint32_t selector) {
    uint32_t pair = byte_permute(0, quad, selector);
    return (pair & 0x80008000u) | (pair >> 1 & 0x3f803f80u);
}

/* KV_NF4_LEVELS in FP16: their low and high bytes, four in a word */
#define NF4_LOW                                                                                                        \
    { 0x52339200u, 0x00d4ea8du, 0x68e02618u, 0x00c9800du }
#define NF4_HIGH                                                                                                       \
    { 0xb6b8b9bcu, 0x00adb1b4u, 0x3533312du, 0x3c393837u }

/* Bytes of a table of 16 for four nibbles: those of the low bits of `nibbles`, from its lower or its upper half. */
__device__ __forceinline__ uint32_t look_up(const uint32_t table[4], uint32_t nibbles, uint32_t is_upper) {
    uint32_t lower = byte_permute(table[0], table[1], nibbles), upper = byte_permute(table[2], table[3], nibbles);
    return (upper & is_upper) | (lower & ~is_upper);
}

/* Of a word of nibbles: those of two bytes, which are (quad 0, quad 1) of a byte and of the next. */
__device__ __forceinline__ void halves_from_nf4(uint32_t nibbles, uint32_t is_upper, uint32_t *first,
                                                uint32_t *second) {
    const uint32_t low_table[4] = NF4_LOW, high_table[4] = NF4_HIGH;
    uint32_t low = look_up(low_table, nibbles, is_upper), high = look_up(high_table, nibbles, is_upper);
    *first = byte_permute(low, high, 0x6240);
    *second = byte_permute(low, high, 0x7351);
}

/* The operand of product `index` of a piece: a[r] and a[r + 2] are the first and second half of the step's quad r. */
template <CodeForm FORM>
__device__ __forceinline__ void code_operand(const uint32_t *words, int index, CodeOffsets offsets, uint32_t a[4]) {
    if constexpr (FORM == FORM_BYTES) {
        uint32_t first = words[2 * index], second = words[2 * index + 1];
        a[0] = half2_add(byte_permute(first, HALF_1024, LOW_PAIR), offsets.bytes);
        a[1] = half2_add(byte_permute(second, HALF_1024, LOW_PAIR), offsets.bytes);
        a[2] = half2_add(byte_permute(first, HALF_1024, HIGH_PAIR), offsets.bytes);
        a[3] = half2_add(byte_permute(second, HALF_1024, HIGH_PAIR), offsets.bytes);
    } else if constexpr (FORM == FORM_NIBBLES) {
        uint32_t first = words[index] & LOW_NIBBLES, second = words[index] & HIGH_NIBBLES;
        a[0] = half2_add(byte_permute(first, HALF_1024, LOW_PAIR), offsets.bytes);
        a[1] = half2_fma(byte_permute(second, HALF_1024, LOW_PAIR), HALF_16TH, offsets.high_nibbles);
        a[2] = half2_add(byte_permute(first, HALF_1024, HIGH_PAIR), offsets.bytes);
        a[3] = half2_fma(byte_permute(second, HALF_1024, HIGH_PAIR), HALF_16TH, offsets.high_nibbles);
    } else if constexpr (FORM == FORM_E4M3) {
        a[0] = half2_from_e4m3(words[2 * index], 0x5040);
        a[1] = half2_from_e4m3(words[2 * index + 1], 0x5040);
        a[2] = half2_from_e4m3(words[2 * index], 0x7060);
        a[3] = half2_from_e4m3(words[2 * index + 1], 0x7060);
    } else {
        /* the fourth bits of (quad 0, quad 1) of two bytes, each as a byte: bit 3 of a selector repeats a sign */
        uint32_t word = words[index], raised = word << 4, nibbles = word & 0x77777777u;
        halves_from_nf4(nibbles, byte_permute(raised, word, 0xd9c8), &a[0], &a[1]);
        halves_from_nf4(nibbles >> 16, byte_permute(raised, word, 0xfbea), &a[2], &a[3]);
    }
}

#endif
