/* Dot products of codes with integers of 16 bits, to which activations, queries or weights were quantized: exact on
 * every instruction set. To be included by sources of stowkv_simd_library() only.
 *
 * A step is four codes (bytes, unsigned) in each lane, and four integers of magnitude up to QUANTIZED_MAX that are the
 * same for all lanes. Its product has two parts; its integers are two 32-bit words, one for each part.
 *
 *     store_words(words, n_steps, at, integers);    // VEC_LANES integers, from index `at` on, of n_steps steps
 *     store_quantized(words, n, integers);          // the first n integers, 32 or 64, of 16 steps
 *
 *     x = vec_int_set1(words[quantized_word(n_steps, step, part)]);
 *     sums[part % CODE_SUMS] = code_dot(wide, sums[part % CODE_SUMS], code_part(codes, part), x);
 *     total = code_total(sums);
 *
 * With one sum for both parts, all products of part 0 come first, then sum = code_weigh(sum), then those of part 1.
 * `wide`: codes may be 128 and more. */
#ifndef STOWKV_SIMD_CODES_H
#define STOWKV_SIMD_CODES_H

#define QUANTIZED_MAX 32639.0f /* 127 * 256 + 127: the largest of two signed digits to the base 256 */

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
