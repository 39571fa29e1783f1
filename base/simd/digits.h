/* 16-bit integers as two signed digits to the base 256, 256 h + l: part 0 of a product is that with h. For instruction
 * sets with a dot product of bytes; see codes.h.
 *
 * vec_dot4(sum, codes, x) adds to each lane the products of its four unsigned codes, each below 128, with four signed
 * bytes; vec_dot4_wide() takes codes up to 255. vec_int_store_bytes() keeps the lowest byte of each lane. */
#ifndef STOWKV_SIMD_DIGITS_H
#define STOWKV_SIMD_DIGITS_H

#include "base/simd/integers.h"

#if defined(__ARM_FEATURE_DOTPROD)

static inline void vec_int_store_bytes(int8_t *out, VecInt x) {
    int16x4_t halves = vmovn_s32(x);
    int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    memcpy(out, &bytes, VEC_LANES);
}
/* The instruction takes signed bytes: codes below 128 are the same as such. */
static inline VecInt vec_dot4(VecInt sum, VecInt codes, VecInt x) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(x));
}
/* The low halves of the codes, then their high halves. */
static inline VecInt vec_dot4_wide(VecInt sum, VecInt codes, VecInt x) {
    VecInt nibbles = vec_int_set1(0x0f0f0f0f), high = vec_int_and(vec_int_shift_right(codes, 4), nibbles);
    sum = vec_dot4(sum, vec_int_and(codes, nibbles), x);
    return vec_int_add(sum, vec_int_shift_left(vec_dot4(vec_int_zero(), high, x), 4));
}

#else

#if VEC_LANES == 16
static inline void vec_int_store_bytes(int8_t *out, VecInt x) {
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(x));
}
#else
static inline void vec_int_store_bytes(int8_t *out, VecInt x) {
    __m256i first = _mm256_set1_epi32(0x0c080400), four = _mm256_shuffle_epi8(x, first);
    __m256i eight = _mm256_permutevar8x32_epi32(four, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    _mm_storel_epi64((__m128i *)(void *)out, _mm256_castsi256_si128(eight));
}
#endif
/* Assembly, because GCC 12 copies the intrinsic's sums from register to register: half the speed with many sums. */
static inline VecInt vec_dot4(VecInt sum, VecInt codes, VecInt x) {
#if VEC_LANES == 16
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
#else
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(x));
#endif
    return sum;
}
static inline VecInt vec_dot4_wide(VecInt sum, VecInt codes, VecInt x) {
    return vec_dot4(sum, codes, x);
}

#endif

#define CODE_SUMS 2 /* one for each part */

static inline size_t quantized_word(size_t n_steps, size_t step, size_t part) {
    return part * n_steps + step;
}
INLINE void store_words(int32_t *words, size_t n_steps, size_t at, VecInt integers) {
    VecInt high = vec_int_shift_right_signed(vec_int_add(integers, vec_int_set1(128)), 8);
    vec_int_store_bytes((int8_t *)words + at, high);
    vec_int_store_bytes((int8_t *)(words + n_steps) + at, integers);
}
static inline VecInt code_part(VecInt codes, size_t part) {
    (void)part;
    return codes;
}
static inline VecInt code_dot(bool wide, VecInt sum, VecInt part, VecInt integers) {
    return wide ? vec_dot4_wide(sum, part, integers) : vec_dot4(sum, part, integers);
}
static inline VecInt code_weigh(VecInt sum) {
    return vec_int_shift_left(sum, 8);
}
static inline VecInt code_total(const VecInt sums[CODE_SUMS]) {
    return vec_int_add(code_weigh(sums[0]), sums[1]);
}

#if VEC_LANES == 16
#define SIMD_STORES_QUANTIZED 1
/* All words of 16 steps; integers beyond the first n, 32 or 64, are 0. */
INLINE void store_quantized(int32_t words[32], size_t n, const VecInt *integers) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i half = _mm512_set1_epi16(128), bytes = _mm512_set1_epi16(255), back = _mm512_setzero_si512();
    __m512i front = _mm512_packs_epi32(integers[0], integers[1]);
    if (n > 32)
        back = _mm512_packs_epi32(integers[2], integers[3]);
    __m512i high = _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(front, half), 8),
                                      _mm512_srai_epi16(_mm512_add_epi16(back, half), 8));
    __m512i low = _mm512_packus_epi16(_mm512_and_si512(front, bytes), _mm512_and_si512(back, bytes));
    vec_int_store(words, _mm512_permutexvar_epi32(order, high));
    vec_int_store(words + 16, _mm512_permutexvar_epi32(order, low));
}
#endif

#endif
