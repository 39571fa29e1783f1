/* Vectors of VEC_LANES 32-bit integers, each of which may stand for four bytes, and lookups by code. To be included by
 * sources of stowkv_simd_library() only.
 *
 * Shifts go by 32-bit lanes: bits that cross into a neighbouring byte must be masked away.
 * vec_bits gives the bits of floats: without the sign they compare as the floats do, NaN and infinity being largest.
 * vec_lookup reads a table of 16 floats at the four lowest bits of each lane and ignores the others. vec_u8_codes makes
 * such lanes of VEC_LANES bytes, vec_packed_codes of VEC_LANES / 2 bytes, the low half of each first.
 * vec_int_store_largest stores the largest lane of each of four vectors. */
#ifndef STOWKV_SIMD_INT_H
#define STOWKV_SIMD_INT_H

#include "base/simd/vectors.h"

#if defined(__AVX512F__)

typedef struct VecTable { Vec part[1]; } VecTable;
static inline VecInt vec_u8_codes(const uint8_t *x) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)x));
}
static inline VecInt vec_packed_codes(const uint8_t *x) {
    __m512i front = _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i *)(const void *)x));
    __m512i spread = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), front);
    return _mm512_srlv_epi32(spread, _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28));
}
static inline Vec vec_lookup(VecTable table, VecInt codes) { return _mm512_permutexvar_ps(codes, table.part[0]); }
static inline VecInt vec_int_load(const void *x) { return _mm512_loadu_si512(x); }
static inline void vec_int_store(void *out, VecInt x) { _mm512_storeu_si512(out, x); }
static inline VecInt vec_int_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline VecInt vec_int_add(VecInt a, VecInt b) { return _mm512_add_epi32(a, b); }
static inline VecInt vec_int_sub(VecInt a, VecInt b) { return _mm512_sub_epi32(a, b); }
static inline VecInt vec_int_and(VecInt a, VecInt b) { return _mm512_and_si512(a, b); }
static inline VecInt vec_int_or(VecInt a, VecInt b) { return _mm512_or_si512(a, b); }
static inline VecInt vec_int_shift_left(VecInt x, int n) { return _mm512_slli_epi32(x, (unsigned)n); }
static inline VecInt vec_int_shift_right(VecInt x, int n) { return _mm512_srli_epi32(x, (unsigned)n); }
static inline VecInt vec_int_shift_right_signed(VecInt x, int n) { return _mm512_srai_epi32(x, (unsigned)n); }
static inline Vec vec_int_to_float(VecInt x) { return _mm512_cvtepi32_ps(x); }
static inline VecInt vec_int_round(Vec x) { return _mm512_cvtps_epi32(x); } /* ties to even */
static inline int32_t vec_int_sum(VecInt x) { return _mm512_reduce_add_epi32(x); }
static inline VecInt vec_int_max(VecInt a, VecInt b) { return _mm512_max_epi32(a, b); }
static inline int32_t vec_int_largest(VecInt x) { return _mm512_reduce_max_epi32(x); }
static inline void vec_int_store_largest(int32_t out[4], VecInt a, VecInt b, VecInt c, VecInt d) {
    VecInt ab = _mm512_max_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
    VecInt cd = _mm512_max_epi32(_mm512_shuffle_i32x4(c, d, 0x44), _mm512_shuffle_i32x4(c, d, 0xee));
    VecInt four = _mm512_max_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
    VecInt two = _mm512_max_epi32(four, _mm512_shuffle_epi32(four, 0x4e));
    VecInt one = _mm512_max_epi32(two, _mm512_shuffle_epi32(two, 0xb1));
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, one)));
}
static inline VecInt vec_bits(Vec x) { return _mm512_castps_si512(x); }

#elif defined(__AVX2__)

typedef struct VecTable { Vec part[2]; } VecTable;
static inline VecInt vec_u8_codes(const uint8_t *x) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x));
}
static inline VecInt vec_packed_codes(const uint8_t *x) {
    int32_t eight;
    memcpy(&eight, x, sizeof eight);
    return _mm256_srlv_epi32(_mm256_set1_epi32(eight), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
}
static inline Vec vec_lookup(VecTable table, VecInt codes) {
    Vec low = _mm256_permutevar8x32_ps(table.part[0], codes), high = _mm256_permutevar8x32_ps(table.part[1], codes);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28))); /* by bit 3 */
}
static inline VecInt vec_int_load(const void *x) { return _mm256_loadu_si256(x); }
static inline void vec_int_store(void *out, VecInt x) { _mm256_storeu_si256(out, x); }
static inline VecInt vec_int_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline VecInt vec_int_add(VecInt a, VecInt b) { return _mm256_add_epi32(a, b); }
static inline VecInt vec_int_sub(VecInt a, VecInt b) { return _mm256_sub_epi32(a, b); }
static inline VecInt vec_int_and(VecInt a, VecInt b) { return _mm256_and_si256(a, b); }
static inline VecInt vec_int_or(VecInt a, VecInt b) { return _mm256_or_si256(a, b); }
static inline VecInt vec_int_shift_left(VecInt x, int n) { return _mm256_slli_epi32(x, n); }
static inline VecInt vec_int_shift_right(VecInt x, int n) { return _mm256_srli_epi32(x, n); }
static inline VecInt vec_int_shift_right_signed(VecInt x, int n) { return _mm256_srai_epi32(x, n); }
static inline Vec vec_int_to_float(VecInt x) { return _mm256_cvtepi32_ps(x); }
static inline VecInt vec_int_round(Vec x) { return _mm256_cvtps_epi32(x); }
static inline int32_t vec_int_sum(VecInt x) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
static inline VecInt vec_int_max(VecInt a, VecInt b) { return _mm256_max_epi32(a, b); }
static inline int32_t vec_int_largest(VecInt x) {
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
static inline VecInt vec_bits(Vec x) { return _mm256_castps_si256(x); }

#elif defined(__ARM_FEATURE_DOTPROD)

typedef struct VecTable { Vec part[4]; } VecTable;
static inline VecInt vec_u8_codes(const uint8_t *x) {
    uint32_t four;
    memcpy(&four, x, sizeof four);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
static inline VecInt vec_packed_codes(const uint8_t *x) {
    uint16_t two;
    memcpy(&two, x, sizeof two);
    return vshlq_s32(vdupq_n_s32(two), (int32x4_t){0, -4, -8, -12});
}
/* By bytes: those of entry i are 4 i to 4 i + 3 of the table. */
static inline Vec vec_lookup(VecTable table, VecInt codes) {
    uint8x16x4_t bytes;
    for (int i = 0; i < 4; i++)
        bytes.val[i] = vreinterpretq_u8_f32(table.part[i]);
    VecInt first = vmulq_n_s32(vandq_s32(codes, vdupq_n_s32(15)), 0x04040404);
    VecInt indices = vaddq_s32(first, vdupq_n_s32(0x03020100));
    return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_s32(indices)));
}
static inline VecInt vec_int_load(const void *x) { return vreinterpretq_s32_u8(vld1q_u8(x)); }
static inline void vec_int_store(void *out, VecInt x) { vst1q_u8(out, vreinterpretq_u8_s32(x)); }
static inline VecInt vec_int_set1(int32_t x) { return vdupq_n_s32(x); }
static inline VecInt vec_int_add(VecInt a, VecInt b) { return vaddq_s32(a, b); }
static inline VecInt vec_int_sub(VecInt a, VecInt b) { return vsubq_s32(a, b); }
static inline VecInt vec_int_and(VecInt a, VecInt b) { return vandq_s32(a, b); }
static inline VecInt vec_int_or(VecInt a, VecInt b) { return vorrq_s32(a, b); }
static inline VecInt vec_int_shift_left(VecInt x, int n) { return vshlq_s32(x, vdupq_n_s32(n)); }
static inline VecInt vec_int_shift_right(VecInt x, int n) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-n)));
}
static inline VecInt vec_int_shift_right_signed(VecInt x, int n) { return vshlq_s32(x, vdupq_n_s32(-n)); }
static inline Vec vec_int_to_float(VecInt x) { return vcvtq_f32_s32(x); }
static inline VecInt vec_int_round(Vec x) { return vcvtnq_s32_f32(x); }
static inline int32_t vec_int_sum(VecInt x) { return vaddvq_s32(x); }
static inline VecInt vec_int_max(VecInt a, VecInt b) { return vmaxq_s32(a, b); }
static inline int32_t vec_int_largest(VecInt x) { return vmaxvq_s32(x); }
static inline VecInt vec_bits(Vec x) { return vreinterpretq_s32_f32(x); }

#else

typedef struct VecTable { Vec part[4]; } VecTable;
static inline VecInt vec_u8_codes(const uint8_t *x) { return (VecInt){x[0], x[1], x[2], x[3]}; }
static inline VecInt vec_packed_codes(const uint8_t *x) { return (VecInt){x[0], x[0] >> 4, x[1], x[1] >> 4}; }
static inline Vec vec_lookup(VecTable table, VecInt codes) {
    float entries[16];
    memcpy(entries, &table, sizeof entries);
    return (Vec){entries[codes[0] & 15], entries[codes[1] & 15], entries[codes[2] & 15], entries[codes[3] & 15]};
}
static inline VecInt vec_int_load(const void *x) {
    VecInt out;
    memcpy(&out, x, sizeof out);
    return out;
}
static inline void vec_int_store(void *out, VecInt x) { memcpy(out, &x, sizeof x); }
static inline VecInt vec_int_set1(int32_t x) { return (VecInt){x, x, x, x}; }
static inline VecInt vec_int_add(VecInt a, VecInt b) { return a + b; }
static inline VecInt vec_int_sub(VecInt a, VecInt b) { return a - b; }
static inline VecInt vec_int_and(VecInt a, VecInt b) { return a & b; }
static inline VecInt vec_int_or(VecInt a, VecInt b) { return a | b; }
typedef uint32_t VecUnsigned __attribute__((vector_size(16)));
static inline VecInt vec_int_shift_left(VecInt x, int n) { return (VecInt)((VecUnsigned)x << (uint32_t)n); }
static inline VecInt vec_int_shift_right(VecInt x, int n) { return (VecInt)((VecUnsigned)x >> (uint32_t)n); }
static inline VecInt vec_int_shift_right_signed(VecInt x, int n) { return x >> n; }
static inline Vec vec_int_to_float(VecInt x) { return __builtin_convertvector(x, Vec); }
static inline VecInt vec_int_round(Vec x) { /* for |x| < 2^22: adding 1.5 * 2^23 rounds to an integer */
    return __builtin_convertvector((x + 12582912.0f) - 12582912.0f, VecInt);
}
static inline int32_t vec_int_sum(VecInt x) { return x[0] + x[1] + x[2] + x[3]; }
static inline VecInt vec_int_max(VecInt a, VecInt b) { return ((a > b) & a) | (~(a > b) & b); }
static inline int32_t vec_int_largest(VecInt x) {
    int32_t a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}
static inline VecInt vec_bits(Vec x) { return (VecInt)x; }

#endif

static inline VecInt vec_int_zero(void) { return vec_int_set1(0); }
/* The bits of the largest magnitude of each lane, over n vectors. */
INLINE VecInt vec_magnitudes(const Vec *x, size_t n) {
    VecInt most = vec_int_zero();
    for (size_t i = 0; i < n; i++)
        most = vec_int_max(most, vec_int_and(vec_bits(x[i]), vec_int_set1(0x7fffffff)));
    return most;
}
/* The largest magnitude of all lanes; not finite where an element is not. */
INLINE float vec_largest_magnitude(const Vec *x, size_t n) {
    int32_t bits = vec_int_largest(vec_magnitudes(x, n));
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest;
}
#if !defined(__AVX512F__)
static inline void vec_int_store_largest(int32_t out[4], VecInt a, VecInt b, VecInt c, VecInt d) {
    const VecInt all[4] = {a, b, c, d};
    for (size_t i = 0; i < 4; i++)
        out[i] = vec_int_largest(all[i]);
}
#endif
static inline VecTable vec_table(const float entries[16]) {
    VecTable table;
    for (size_t i = 0; i < 16 / VEC_LANES; i++)
        table.part[i] = vec_load(entries + i * VEC_LANES);
    return table;
}

#endif
