/* Dot products of codes with what was quantized to 16 bits: integers, exact on every instruction set. To be included by
 * sources of stowkv_simd_library() only.
 *
 * A step is four codes (bytes, unsigned) in each lane, and four integers, QUANTIZED_MAX at most, that are the same for
 * all lanes. A product with a step has two parts, and integers are two 32-bit words a step, one for each part.
 *
 *     store_words(words, n_steps, at, integers);            // VEC_LANES of the integers of n_steps, from number `at`
 * on store_quantized(words, n, integers);                    // n, 32 or 64, of the integers of 16 steps x =
 * vec_int_set1(words[quantized_word(n_steps, step, part)]); sums[part % CODE_SUMS] = code_dot(wide, sums[part %
 * CODE_SUMS], code_part(codes, part), x); code_total(sums);
 *
 * With one sum for both parts, where all products of part 0 come first, it is sum = code_weigh(sum) between them.
 * `wide`: codes may be 128 and more. */
#ifndef STOWKV_SIMD_CODES_H
#define STOWKV_SIMD_CODES_H

#define QUANTIZED_MAX 32639.0f /* 127 * 256 + 127: what two signed digits hold */

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
#include "base/simd/digits.h"
#else
#include "base/simd/pairs.h"
#endif

#if !defined(SIMD_STORES_QUANTIZED)
INLINE void store_quantized(int32_t words[32], size_t n, const VecInt *integers) {
    for (size_t i = 0; i < n / VEC_LANES; i++)
        store_words(words, 16, i * VEC_LANES, integers[i]);
}
#endif

#endif
