/* Integer dot products of codes with 16-bit numbers, exact on every instruction set. To be included by sources of
 * stowkv_simd_library() only.
 *
 * A step is four codes (bytes, unsigned) in each lane, and four numbers that are the same for all lanes. Where there is
 * an instruction for the dot product of bytes, numbers are two planes of bytes, 256 h + l; else they are pairs of 16
 * bits, of elements 0 and 2, 1 and 3. Both are two words a step, number_word(step, 0) and number_word(step, 1) of what
 * store_numbers() has written. */
#ifndef STOWKV_SIMD_CODES_H
#define STOWKV_SIMD_CODES_H

#include "model/base/simd_int.h"

#define NUMBER_STEPS 16 /* of the numbers that stand together: 64 */

typedef struct CodeStep {
    VecInt part[2];
} CodeStep;

#if defined(__AVX512F__)

/* For each four numbers two words: the first and the third, the second and the fourth. */
static inline void vec_store_pairs(int32_t *words, VecInt numbers) {
    __m128i order = _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13);
    __m512i pairs = _mm512_shuffle_epi8(numbers, _mm512_broadcast_i32x4(order));
    pairs = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), pairs);
    _mm256_storeu_si256((__m256i *)(void *)words, _mm512_castsi512_si256(pairs));
}

/* Adds to each lane the products of two numbers of 16 bits with two others. GCC 12, left to itself, sums products of
 * several steps before it adds them, and keeps them in memory meanwhile. */
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt products = _mm512_madd_epi16(a, b);
    __asm__("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products));
    return sum;
}

#elif defined(__AVX2__)

static inline void vec_store_pairs(int32_t *words, VecInt numbers) {
    __m128i order = _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 0, 1, 8, 9, 4, 5, 12, 13);
    __m256i pairs = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(numbers, _mm256_broadcastsi128_si256(order)), 0x08);
    _mm_storeu_si128((__m128i *)(void *)words, _mm256_castsi256_si128(pairs));
}
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt products = _mm256_madd_epi16(a, b);
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

#elif !defined(__ARM_FEATURE_DOTPROD)

static inline void vec_store_pairs(int32_t *words, VecInt numbers) {
    VecInt low = vec_int_and(numbers, vec_int_set1(0xffff)), high = vec_int_shift_left(numbers, 16);
    words[0] = low[0] | high[2];
    words[1] = low[1] | high[3];
}
static inline VecInt vec_dot2(VecInt sum, VecInt a, VecInt b) {
    VecInt low = vec_int_shift_right_signed(vec_int_shift_left(a, 16), 16) *
                 vec_int_shift_right_signed(vec_int_shift_left(b, 16), 16);
    return sum + low + vec_int_shift_right_signed(a, 16) * vec_int_shift_right_signed(b, 16);
}

#endif

#if defined(SIMD_VNNI) || defined(__ARM_FEATURE_DOTPROD)

#define CODE_SUMS 2 /* of products, one for each plane */

static inline size_t number_word(size_t step, size_t part) {
    return part * NUMBER_STEPS + step;
}

/* n numbers, a multiple of 32, each within [-32639, 32639]. */
#if VEC_LANES == 16
INLINE void store_numbers(int32_t words[2 * NUMBER_STEPS], size_t n, const VecInt *numbers) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i half = _mm512_set1_epi16(128), bytes = _mm512_set1_epi16(255), back = _mm512_setzero_si512();
    __m512i front = _mm512_packs_epi32(numbers[0], numbers[1]);
    if (n > 32)
        back = _mm512_packs_epi32(numbers[2], numbers[3]);
    __m512i high = _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(front, half), 8),
                                      _mm512_srai_epi16(_mm512_add_epi16(back, half), 8));
    __m512i low = _mm512_packus_epi16(_mm512_and_si512(front, bytes), _mm512_and_si512(back, bytes));
    vec_int_store(words, _mm512_permutexvar_epi32(order, high));
    vec_int_store(words + NUMBER_STEPS, _mm512_permutexvar_epi32(order, low));
}
#else
INLINE void store_numbers(int32_t words[2 * NUMBER_STEPS], size_t n, const VecInt *numbers) {
    for (size_t i = 0; i < n / VEC_LANES; i++) {
        VecInt high = vec_int_shift_right_signed(vec_int_add(numbers[i], vec_int_set1(128)), 8);
        vec_int_store_bytes((int8_t *)words + i * VEC_LANES, high);
        vec_int_store_bytes((int8_t *)(words + NUMBER_STEPS) + i * VEC_LANES, numbers[i]);
    }
}
#endif

static inline CodeStep code_step(VecInt codes) {
    return (CodeStep){{codes, codes}};
}

/* `wide`: codes may be 128 and more. */
static inline VecInt code_dot(bool wide, VecInt sum, VecInt part, VecInt numbers) {
    return wide ? vec_dot4_wide(sum, part, numbers) : vec_dot4(sum, part, numbers);
}

static inline VecInt code_total(const VecInt sums[CODE_SUMS]) {
    return vec_int_add(vec_int_shift_left(sums[0], 8), sums[1]);
}

#else

#define CODE_SUMS 1

static inline size_t number_word(size_t step, size_t part) {
    return 2 * step + part;
}

INLINE void store_numbers(int32_t words[2 * NUMBER_STEPS], size_t n, const VecInt *numbers) {
    for (size_t i = 0; i < n / VEC_LANES; i++)
        vec_store_pairs(words + i * VEC_LANES / 2, numbers[i]);
}

static inline CodeStep code_step(VecInt codes) {
    VecInt bytes = vec_int_set1(0x00ff00ff);
    return (CodeStep){{vec_int_and(codes, bytes), vec_int_and(vec_int_shift_right(codes, 8), bytes)}};
}

static inline VecInt code_dot(bool wide, VecInt sum, VecInt part, VecInt numbers) {
    (void)wide;
    return vec_dot2(sum, part, numbers);
}

static inline VecInt code_total(const VecInt sums[CODE_SUMS]) {
    return sums[0];
}

#endif

#endif
