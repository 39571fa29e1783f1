/* 16-bit integers in pairs, two to a word: integers 0 and 2 of a step for part 0 of its product, 1 and 3 for part 1.
 * For instruction sets without a dot product of bytes; see codes.h. */
#ifndef STOWKV_SIMD_PAIRS_H
#define STOWKV_SIMD_PAIRS_H

#include "base/simd/integers.h"

#if defined(__AVX512F__)

/* For each four integers two words: the first and the third, the second and the fourth. */
static inline void vec_store_pairs(int32_t *words, VecInt integers) {
    __m128i order = _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13);
    __m512i pairs = _mm512_shuffle_epi8(integers, _mm512_broadcast_i32x4(order));
    pairs = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), pairs);
    _mm256_storeu_si256((__m256i *)(void *)words, _mm512_castsi512_si256(pairs));
}

/* Adds to each lane the products of two integers of 16 bits with two others. Assembly, because GCC 12 sums products of
 * several steps before it adds them to `sum`, and holds them in memory meanwhile. */
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt products = _mm512_madd_epi16(a, b);
    __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products));
    return sum;
}

#elif defined(__AVX2__)

static inline void vec_store_pairs(int32_t *words, VecInt integers) {
    __m128i order = _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13);
    __m256i pairs = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(integers, _mm256_broadcastsi128_si256(order)), 0x08);
    _mm_storeu_si128((__m128i *)(void *)words, _mm256_castsi256_si128(pairs));
}
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt products = _mm256_madd_epi16(a, b);
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

#else

static inline void vec_store_pairs(int32_t *words, VecInt integers) {
    VecInt low = vec_int_and(integers, vec_int_set1(0xffff)), high = vec_int_shift_left(integers, 16);
    words[0] = low[0] | high[2];
    words[1] = low[1] | high[3];
}
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt low = vec_int_shift_right_signed(vec_int_shift_left(a, 16), 16) *
                 vec_int_shift_right_signed(vec_int_shift_left(b, 16), 16);
    return sum + low + vec_int_shift_right_signed(a, 16) * vec_int_shift_right_signed(b, 16);
}

#endif

#define CODE_SUMS 1 /* for both parts */

static inline size_t quantized_word(size_t n_steps, size_t step, size_t part) {
    (void)n_steps;
    return 2 * step + part;
}
INLINE void store_words(int32_t *words, size_t n_steps, size_t at, VecInt integers) {
    (void)n_steps;
    vec_store_pairs(words + at / 2, integers);
}
static inline VecInt code_part(VecInt codes, size_t part) {
    return vec_int_and(vec_int_shift_right(codes, 8 * (int)part), vec_int_set1(0x00ff00ff));
}
static inline VecInt code_dot(bool wide, VecInt sum, VecInt part, VecInt integers) {
    (void)wide;
    return vec_dot2(sum, part, integers);
}
static inline VecInt code_weigh(VecInt sum) {
    return sum;
}
static inline VecInt code_total(const VecInt sums[CODE_SUMS]) {
    return sums[0];
}

#endif
