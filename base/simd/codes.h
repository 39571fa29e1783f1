/* Integer dot products of codes with 16-bit numbers, exact on every instruction set. To be included by sources of
 * stowkv_simd_library() only.
 *
 * A step is four codes (bytes, unsigned) in each lane, and four numbers, NUMBER_MOST at most, that are the same for all
 * lanes. A product with a step has two parts, and numbers are two 32-bit words a step, one for each part.
 *
 *     store_words(words, n_steps, at, numbers);            // VEC_LANES of the numbers of n_steps, from number `at` on
 *     store_numbers(words, n, numbers);                    // n, 32 or 64, of the numbers of 16 steps
 *     x = vec_int_set1(words[number_word(n_steps, step, part)]);
 *     sums[part % CODE_SUMS] = code_dot(wide, sums[part % CODE_SUMS], code_part(codes, part), x);
 *     code_total(sums);
 *
 * With one sum for both parts, where all products of part 0 come first, it is sum = code_weigh(sum) between them.
 * `wide`: codes may be 128 and more. */
#ifndef STOWKV_SIMD_CODES_H
#define STOWKV_SIMD_CODES_H

#define NUMBER_MOST 32639.0f /* 127 * 256 + 127: what two signed digits hold */

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
#include "base/simd/digits.h"
#else
#include "base/simd/pairs.h"
#endif

#if !defined(SIMD_STORES_NUMBERS)
INLINE void store_numbers(int32_t words[32], size_t n, const VecInt *numbers) {
    for (size_t i = 0; i < n / VEC_LANES; i++)
        store_words(words, 16, i * VEC_LANES, numbers[i]);
}
#endif

#endif
