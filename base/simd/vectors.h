/* Vectors of F32 in the instruction set that the including source is compiled for: the few primitives that kernels are
 * written in. VEC_LANES is 16 (AVX-512), 8 (AVX2) or 4 (NEON, and "scalar": plain C vector types, which need no
 * instruction set beyond the platform's minimum). To be included by sources of stowkv_simd_library() only.
 *
 * The *_partial forms touch only the first n < VEC_LANES elements; the other lanes are 0.
 * vec_load_e4m3 gives 2^-8 times the values of E4M3 bytes (kvcache/codec/fp8.h), none of which may be NaN.
 * vec_min and vec_max give the second operand where either is NaN.
 * vec_largest gives the largest lane, where none is NaN.
 * vec_sum adds lanes half a vector apart, then a quarter, down to neighbours; vec_store_sums does so with four vectors
 * at once: the same bits for a third of the work. */
#ifndef STOWKV_SIMD_H
#define STOWKV_SIMD_H

#include "base/half.h"
#include "base/simd/levels.h"

#include <stdbool.h>
#include <stddef.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)

#define VEC_LANES 16
typedef __m512 Vec;
typedef __m512i VecInt;

static inline __mmask16 vec_mask(size_t n) { return (__mmask16)((1u << n) - 1); }
static inline Vec vec_set1(float x) { return _mm512_set1_ps(x); }
static inline Vec vec_load(const float *x) { return _mm512_loadu_ps(x); }
static inline Vec vec_load_partial(const float *x, size_t n) { return _mm512_maskz_loadu_ps(vec_mask(n), x); }
static inline void vec_store(float *out, Vec x) { _mm512_storeu_ps(out, x); }
static inline void vec_store_partial(float *out, Vec x, size_t n) { _mm512_mask_storeu_ps(out, vec_mask(n), x); }
static inline Vec vec_load_half(const uint16_t *x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}
static inline Vec vec_load_half_partial(const uint16_t *x, size_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(n), x));
}
static inline Vec vec_load_bf16(const uint16_t *x) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline Vec vec_load_u8(const uint8_t *x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x)));
}
static inline Vec vec_load_i8(const int8_t *x) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x)));
}
static inline Vec vec_load_e4m3(const uint8_t *x) {
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)x)), 7);
    return _mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80)));
}
static inline Vec vec_add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec vec_sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec vec_mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec vec_div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static inline Vec vec_min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec vec_max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline float vec_sum(Vec x) { return _mm512_reduce_add_ps(x); }
static inline float vec_largest(Vec x) { return _mm512_reduce_max_ps(x); }
static inline void vec_store_sums(float out[4], Vec a, Vec b, Vec c, Vec d) {
    Vec ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    Vec cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    Vec four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    Vec two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
    Vec one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xb1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one)));
}
/* To the nearest integer, ties to even, for |x| < 2^22. */
static inline Vec vec_round(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
/* y * 2^n for integral n up to 127; 0 or nearly 0 for n below -126. */
static inline Vec vec_scale_by_power(Vec y, Vec n) { return _mm512_scalef_ps(y, n); }

#elif defined(__AVX2__)

#define VEC_LANES 8
typedef __m256 Vec;
typedef __m256i VecInt;

static inline __m256i vec_mask(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline Vec vec_set1(float x) { return _mm256_set1_ps(x); }
static inline Vec vec_load(const float *x) { return _mm256_loadu_ps(x); }
static inline Vec vec_load_partial(const float *x, size_t n) { return _mm256_maskload_ps(x, vec_mask(n)); }
static inline void vec_store(float *out, Vec x) { _mm256_storeu_ps(out, x); }
static inline void vec_store_partial(float *out, Vec x, size_t n) { _mm256_maskstore_ps(out, vec_mask(n), x); }
static inline Vec vec_load_half(const uint16_t *x) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x));
}
static inline Vec vec_load_half_partial(const uint16_t *x, size_t n) {
    uint16_t padded[VEC_LANES] = {0};
    memcpy(padded, x, n * sizeof *x);
    return vec_load_half(padded);
}
static inline Vec vec_load_bf16(const uint16_t *x) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)x));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline Vec vec_load_u8(const uint8_t *x) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x)));
}
static inline Vec vec_load_i8(const int8_t *x) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x)));
}
static inline Vec vec_load_e4m3(const uint8_t *x) {
    __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)x)), 7);
    return _mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16((short)0xbf80)));
}
static inline Vec vec_add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
static inline Vec vec_sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
static inline Vec vec_mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
static inline Vec vec_div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
static inline Vec vec_min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
static inline Vec vec_max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline float vec_sum(Vec x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float vec_largest(Vec x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
static inline void vec_store_sums(float out[4], Vec a, Vec b, Vec c, Vec d) {
    Vec ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    Vec cd = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20), _mm256_permute2f128_ps(c, d, 0x31));
    Vec two = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    Vec one = _mm256_add_ps(two, _mm256_movehdup_ps(two)); /* a, -, c, -, b, -, d, - */
    __m128 ac = _mm256_castps256_ps128(one), bd = _mm256_extractf128_ps(one, 1);
    _mm_storeu_ps(out, _mm_movelh_ps(_mm_unpacklo_ps(ac, bd), _mm_unpackhi_ps(ac, bd)));
}
static inline Vec vec_round(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Vec vec_scale_by_power(Vec y, Vec n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    exponent = _mm256_max_epi32(exponent, _mm256_setzero_si256());
    return _mm256_mul_ps(y, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

#elif defined(__ARM_FEATURE_DOTPROD)

#define VEC_LANES 4
typedef float32x4_t Vec;
typedef int32x4_t VecInt;

static inline Vec vec_set1(float x) { return vdupq_n_f32(x); }
static inline Vec vec_load(const float *x) { return vld1q_f32(x); }
static inline Vec vec_load_partial(const float *x, size_t n) {
    float padded[VEC_LANES] = {0};
    memcpy(padded, x, n * sizeof *x);
    return vec_load(padded);
}
static inline void vec_store(float *out, Vec x) { vst1q_f32(out, x); }
static inline void vec_store_partial(float *out, Vec x, size_t n) { memcpy(out, &x, n * sizeof *out); }
static inline Vec vec_load_half(const uint16_t *x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
static inline Vec vec_load_half_partial(const uint16_t *x, size_t n) {
    uint16_t padded[VEC_LANES] = {0};
    memcpy(padded, x, n * sizeof *x);
    return vec_load_half(padded);
}
static inline Vec vec_load_bf16(const uint16_t *x) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(x), 16)); }
static inline Vec vec_load_u8(const uint8_t *x) {
    uint32_t four;
    memcpy(&four, x, sizeof four);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
static inline Vec vec_load_i8(const int8_t *x) {
    uint32_t four;
    memcpy(&four, x, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}
static inline Vec vec_load_e4m3(const uint8_t *x) {
    uint32_t four;
    memcpy(&four, x, sizeof four);
    int16x4_t wide = vshl_n_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))), 7);
    return vcvt_f32_f16(vreinterpret_f16_s16(vand_s16(wide, vdup_n_s16((int16_t)0xbf80))));
}
static inline Vec vec_add(Vec a, Vec b) { return vaddq_f32(a, b); }
static inline Vec vec_sub(Vec a, Vec b) { return vsubq_f32(a, b); }
static inline Vec vec_mul(Vec a, Vec b) { return vmulq_f32(a, b); }
static inline Vec vec_div(Vec a, Vec b) { return vdivq_f32(a, b); }
static inline Vec vec_min(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline Vec vec_max(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
static inline float vec_sum(Vec x) { return vpadds_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x))); }
static inline float vec_largest(Vec x) { return vmaxvq_f32(x); }
static inline void vec_store_sums(float out[4], Vec a, Vec b, Vec c, Vec d) {
    float32x2_t a2 = vadd_f32(vget_low_f32(a), vget_high_f32(a)), b2 = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    float32x2_t c2 = vadd_f32(vget_low_f32(c), vget_high_f32(c)), d2 = vadd_f32(vget_low_f32(d), vget_high_f32(d));
    vec_store(out, vpaddq_f32(vcombine_f32(a2, b2), vcombine_f32(c2, d2)));
}
static inline Vec vec_round(Vec x) { return vrndnq_f32(x); }
static inline Vec vec_scale_by_power(Vec y, Vec n) {
    int32x4_t exponent = vmaxq_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), vdupq_n_s32(0));
    return vmulq_f32(y, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}

#else

#define VEC_LANES 4
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t VecInt __attribute__((vector_size(16)));

static inline Vec vec_set1(float x) { return (Vec){x, x, x, x}; }
static inline Vec vec_load_partial(const float *x, size_t n) {
    Vec out = {0};
    memcpy(&out, x, n * sizeof *x);
    return out;
}
static inline Vec vec_load(const float *x) { return vec_load_partial(x, VEC_LANES); }
static inline void vec_store_partial(float *out, Vec x, size_t n) { memcpy(out, &x, n * sizeof *out); }
static inline void vec_store(float *out, Vec x) { vec_store_partial(out, x, VEC_LANES); }
static inline Vec vec_load_half(const uint16_t *x) {
    return (Vec){half_to_float(x[0]), half_to_float(x[1]), half_to_float(x[2]), half_to_float(x[3])};
}
static inline Vec vec_load_half_partial(const uint16_t *x, size_t n) {
    uint16_t padded[VEC_LANES] = {0};
    memcpy(padded, x, n * sizeof *x);
    return vec_load_half(padded);
}
static inline Vec vec_load_bf16(const uint16_t *x) {
    return (Vec){bf16_to_float(x[0]), bf16_to_float(x[1]), bf16_to_float(x[2]), bf16_to_float(x[3])};
}
static inline Vec vec_load_u8(const uint8_t *x) {
    return (Vec){(float)x[0], (float)x[1], (float)x[2], (float)x[3]};
}
static inline Vec vec_load_i8(const int8_t *x) { return (Vec){(float)x[0], (float)x[1], (float)x[2], (float)x[3]}; }
static inline Vec vec_load_e4m3(const uint8_t *x) {
    uint16_t halves[VEC_LANES];
    for (size_t i = 0; i < VEC_LANES; i++)
        halves[i] = (uint16_t)((x[i] & 0x80) << 8 | (x[i] & 0x7f) << 7);
    return vec_load_half(halves);
}
static inline Vec vec_add(Vec a, Vec b) { return a + b; }
static inline Vec vec_sub(Vec a, Vec b) { return a - b; }
static inline Vec vec_mul(Vec a, Vec b) { return a * b; }
static inline Vec vec_div(Vec a, Vec b) { return a / b; }
static inline Vec vec_select(VecInt condition, Vec a, Vec b) {
    return (Vec)((condition & (VecInt)a) | (~condition & (VecInt)b));
}
static inline Vec vec_min(Vec a, Vec b) { return vec_select(a < b, a, b); }
static inline Vec vec_max(Vec a, Vec b) { return vec_select(a > b, a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return a * b + c; }
static inline float vec_sum(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline float vec_largest(Vec x) {
    float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}
static inline void vec_store_sums(float out[4], Vec a, Vec b, Vec c, Vec d) {
    Vec ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    Vec cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    vec_store(out, __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7));
}
static inline Vec vec_round(Vec x) { return (x + 12582912.0f) - 12582912.0f; } /* 1.5 * 2^23 */
static inline Vec vec_scale_by_power(Vec y, Vec n) {
    VecInt exponent = __builtin_convertvector(n, VecInt) + 127;
    return y * (Vec)(((exponent > 0) & exponent) << 23);
}

#endif

#if defined(__SANITIZE_ADDRESS__) /* checks in every copy of every kernel would take minutes to compile */
#define INLINE static __attribute__((noinline, unused))
#else
#define INLINE static inline __attribute__((always_inline))
#endif

static inline Vec vec_zero(void) { return vec_set1(0.0f); }

#define LOG2_E 1.44269502f

/* 2^(n + f) for integral n up to 127 and |f| up to 1/2; 0 or nearly 0 for n below -126. The polynomial is the
 * minimax one of degree 5 that is 1 at f = 0: relative error 9.2e-8, below 1.7e-7 with roundings. */
static inline Vec vec_exp2_parts(Vec n, Vec f) {
    Vec p = vec_fma(vec_set1(1.3264727e-3f), f, vec_set1(9.671513e-3f));
    p = vec_fma(p, f, vec_set1(5.5507336e-2f));
    p = vec_fma(p, f, vec_set1(2.4022242e-1f));
    p = vec_fma(p, f, vec_set1(6.9314700e-1f));
    return vec_scale_by_power(vec_fma(p, f, vec_set1(1.0f)), n);
}
/* 2^x for x up to 127. vec_max gives its second operand for NaN, so that a NaN in x stays one. */
static inline Vec vec_exp2(Vec x) {
    Vec above = vec_max(vec_set1(-1000.0f), x), n = vec_round(above);
    return vec_exp2_parts(n, vec_sub(above, n));
}
/* e^x for x up to 88, with a relative error below 2e-7: n log(2) is subtracted in two parts (Cody & Waite 1980). */
static inline Vec vec_exp(Vec x) {
    Vec above = vec_max(vec_set1(-700.0f), x), n = vec_round(vec_mul(above, vec_set1(LOG2_E)));
    Vec r = vec_fma(n, vec_set1(2.12194440e-4f), vec_fma(n, vec_set1(-0.693359375f), above));
    return vec_exp2_parts(n, vec_mul(r, vec_set1(LOG2_E)));
}

#endif
