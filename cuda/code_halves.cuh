/* Codes as FP16 numbers: a quad of four (cuda/fragments.h) becomes two pairs, exactly, by permutes of bytes and a sum,
 * without conversions of numbers. Scales and minima are the caller's. */
#ifndef STOWKV_CUDA_CODE_HALVES_CUH
#define STOWKV_CUDA_CODE_HALVES_CUH

#include "cuda/fragments.h"
#include "cuda/primitives.cuh"

/* How a kind of code becomes FP16. Codes of 4 bits stay as they are stored, the two quads of a step in a word; others
 * become bytes. */
enum CodeForm { FORM_BYTES, FORM_NIBBLES, FORM_E4M3, FORM_NF4 };

__device__ __forceinline__ CodeForm code_form(KvCodeKind kind, int bits) {
    return kind == KV_CODE_NF4 ? FORM_NF4 : kind == KV_CODE_E4M3 ? FORM_E4M3 : bits == 4 ? FORM_NIBBLES : FORM_BYTES;
}

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
