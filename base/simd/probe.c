/* A few instructions of every feature of a level, with results that are known; see probe.h. Inputs are volatile,
 * so that the compiler cannot compute the results. */
#include "base/simd/probe.h"

#include "base/simd/vectors.h"

/* 1² + … + n² + n / 2, where n is the number of lanes: F32 with FMA, and conversion from FP16. */
static bool floats_work(void) {
    static const volatile float ONE = 1;
    uint16_t halves[VEC_LANES];
    float expected = 0;
    for (int i = 0; i < VEC_LANES; i++) {
        halves[i] = half_from_float(ONE * (float)(i + 1));
        expected += (float)((i + 1) * (i + 1)) + 0.5f;
    }
    Vec x = vec_load_half(halves), part = vec_load_half_partial(halves, VEC_LANES - 1);
    Vec last = vec_add(x, vec_mul(part, vec_set1(-1.0f)));
    return vec_sum(vec_fma(x, x, vec_set1(0.5f))) == expected && vec_sum(last) == (float)VEC_LANES;
}

#if defined(__AVX2__) || defined(__ARM_FEATURE_DOTPROD)
enum { N_BYTES = 4 * VEC_LANES };

/* -3 · (0 + 1 + … ) in each level's own way to sum products of bytes. */
static bool bytes_work(void) {
    static const volatile int8_t FACTOR = -3;
    uint8_t bytes[N_BYTES];
    int8_t factors[N_BYTES];
    int expected = 0;
    for (int i = 0; i < N_BYTES; i++) {
        bytes[i] = (uint8_t)i;
        factors[i] = FACTOR;
        expected -= 3 * i;
    }
    int32_t sums[VEC_LANES];
#if defined(__AVX512F__)
    __m512i a = _mm512_loadu_si512(bytes), b = _mm512_loadu_si512(factors);
#if defined(__AVX512VNNI__)
    __m512i products = _mm512_dpbusd_epi32(_mm512_setzero_si512(), a, b);
#else
    __m512i products = _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1));
#endif
    __m512i wide = _mm512_mullo_epi64(a, b); /* DQ: the low half of a 64-bit product is the 32-bit one */
    if (_mm512_cmpneq_epi32_mask(wide, _mm512_mullo_epi32(a, b)) & 1)
        return false;
    _mm512_storeu_si512(sums, products);
#elif defined(__AVX2__)
    __m256i a = _mm256_loadu_si256((const void *)bytes), b = _mm256_loadu_si256((const void *)factors);
#if defined(__AVXVNNI__)
    __m256i products = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), a, b);
#else
    __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
#endif
    _mm256_storeu_si256((void *)sums, products);
#else
    vst1q_s32(sums, vdotq_s32(vdupq_n_s32(0), vreinterpretq_s8_u8(vld1q_u8(bytes)), vld1q_s8(factors)));
    float16x8_t half = vcvtq_f16_s16(vdupq_n_s16(FACTOR)); /* FP16 arithmetic */
    if (vgetq_lane_s16(vcvtq_s16_f16(vmulq_f16(half, half)), 0) != 9)
        return false;
#endif
    for (int i = 0; i < VEC_LANES; i++)
        expected -= sums[i];
    return expected == 0;
}
#else
static bool bytes_work(void) {
    return true;
}
#endif

bool SIMD_NAME(simd_probe)(void) {
    return floats_work() && bytes_work();
}
