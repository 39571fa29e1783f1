/* See kernels.h. */
#include "channel_int8/kernels.h"

#include "base/simd/integers.h"
#include "channel_int8/code.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define RUN 8 /* vectors that are encoded before it is asked whether all codes are sure */

/* Rows that are looked through together where they are long: the largest magnitudes of all channels are loaded and
 * stored once for them, and do not fit the first cache beside a row. Short ones are read one behind the other, which
 * hardware prefetchers follow best; software's make both slower, and copies faster. */
#define ROWS          4
#define LONG_CHANNELS 1024
#define AHEAD_BYTES   8192

/* ---- What vectors of integers lack */

/* The lowest byte of each lane. */
static inline void store_bytes(int8_t *out, VecInt x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(x));
#elif defined(__AVX2__)
    __m256i first = _mm256_set1_epi32(0x0c080400), four = _mm256_shuffle_epi8(x, first);
    __m256i eight = _mm256_permutevar8x32_epi32(four, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    _mm_storel_epi64((__m128i *)(void *)out, _mm256_castsi256_si128(eight));
#elif defined(__ARM_FEATURE_DOTPROD)
    int16x4_t halves = vmovn_s32(x);
    int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    memcpy(out, &bytes, VEC_LANES);
#else
    for (int i = 0; i < VEC_LANES; i++)
        out[i] = (int8_t)x[i];
#endif
}

/* Whether any lane of x is larger than that of the limit. */
static inline bool any_above(VecInt x, VecInt limit) {
#if defined(__AVX512F__)
    return _mm512_cmpgt_epi32_mask(x, limit) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(x, limit)) != 0;
#elif defined(__ARM_FEATURE_DOTPROD)
    return vmaxvq_u32(vcgtq_s32(x, limit)) != 0;
#else
    VecInt above = x > limit;
    return (above[0] | above[1] | above[2] | above[3]) != 0;
#endif
}

/* ---- Scales */

INLINE VecInt load_largest(const uint32_t *largest, size_t n) {
    int32_t padded[VEC_LANES] = {0};
    if (n >= VEC_LANES)
        return vec_int_load(largest);
    memcpy(padded, largest, n * sizeof *largest);
    return vec_int_load(padded);
}

INLINE void store_largest(uint32_t *largest, VecInt x, size_t n) {
    int32_t padded[VEC_LANES];
    if (n >= VEC_LANES) {
        vec_int_store(largest, x);
        return;
    }
    vec_int_store(padded, x);
    memcpy(largest, padded, n * sizeof *largest);
}

INLINE Vec load_floats(const float *x, size_t n) {
    return n >= VEC_LANES ? vec_load(x) : vec_load_partial(x, n);
}

/* Channels from d on, as many as a vector has or n are left, of n_rows rows. */
INLINE void raise_largest(const float *x, size_t n_channels, size_t n_rows, size_t n, uint32_t *largest) {
    Vec rows[ROWS];
    for (size_t r = 0; r < n_rows; r++)
        rows[r] = load_floats(x + r * n_channels, n);
    store_largest(largest, vec_int_max(load_largest(largest, n), vec_magnitudes(rows, n_rows)), n);
}

INLINE void find_in_rows(const float *x, size_t n_channels, size_t n_rows, uint32_t *largest) {
    size_t d = 0;
    for (; d + VEC_LANES <= n_channels; d += VEC_LANES)
        raise_largest(x + d, n_channels, n_rows, VEC_LANES, largest + d);
    if (d < n_channels)
        raise_largest(x + d, n_channels, n_rows, n_channels - d, largest + d);
}

static void find_largest(const float *keys, size_t n_tokens, size_t n_channels, uint32_t *largest) {
    size_t t = 0;
    for (; n_channels > LONG_CHANNELS && t + ROWS <= n_tokens; t += ROWS)
        find_in_rows(keys + t * n_channels, n_channels, ROWS, largest);
    for (; t < n_tokens; t++)
        find_in_rows(keys + t * n_channels, n_channels, 1, largest);
}

/* ---- Codes */

/* Codes by the product with the inverse; raises *worst to the bits of the largest distance from an integer. */
INLINE VecInt encode_vector(Vec x, Vec inverse, VecInt *worst) {
    Vec quotient = vec_mul(x, inverse), distance = vec_sub(quotient, vec_round(quotient));
    *worst = vec_int_max(*worst, vec_int_and(vec_bits(distance), vec_int_set1(0x7fffffff)));
    return vec_int_round(quotient);
}

/* Whether any of the codes may be another one; of NaN, too. */
INLINE bool is_unsure(VecInt worst) {
    return any_above(worst, vec_int_set1((int32_t)float_to_bits(CHANNEL_SURE) - 1));
}

static void encode_again(const float *x, const float *scales, const float *inverses, size_t n, int8_t *codes) {
    for (size_t d = 0; d < n; d++)
        codes[d] = channel_code(x[d], scales[d], inverses[d]);
}

INLINE void encode_vectors(const float *x, const float *scales, const float *inverses, size_t n_vectors,
                           int8_t *codes) {
    VecInt worst = vec_int_zero();
    for (size_t at = 0; at < n_vectors * VEC_LANES; at += VEC_LANES)
        store_bytes(codes + at, encode_vector(vec_load(x + at), vec_load(inverses + at), &worst));
    if (is_unsure(worst))
        encode_again(x, scales, inverses, n_vectors * VEC_LANES, codes);
}

INLINE void encode_partial(const float *x, const float *scales, const float *inverses, size_t n, int8_t *codes) {
    int8_t padded[VEC_LANES];
    VecInt worst = vec_int_zero();
    store_bytes(padded, encode_vector(vec_load_partial(x, n), vec_load_partial(inverses, n), &worst));
    memcpy(codes, padded, n);
    if (is_unsure(worst))
        encode_again(x, scales, inverses, n, codes);
}

static void encode(const float *keys, const float *scales, const float *inverses, size_t n_tokens, size_t n_channels,
                   int8_t *codes) {
    for (size_t t = 0; t < n_tokens; t++, keys += n_channels, codes += n_channels) {
        size_t d = 0;
        for (; d + RUN * VEC_LANES <= n_channels; d += RUN * VEC_LANES)
            encode_vectors(keys + d, scales + d, inverses + d, RUN, codes + d);
        for (; d + VEC_LANES <= n_channels; d += VEC_LANES)
            encode_vectors(keys + d, scales + d, inverses + d, 1, codes + d);
        if (d < n_channels)
            encode_partial(keys + d, scales + d, inverses + d, n_channels - d, codes + d);
    }
}

/* ---- And back */

static void decode(const int8_t *codes, const float *scales, size_t n_tokens, size_t n_channels, float *decoded) {
    for (size_t t = 0; t < n_tokens; t++, codes += n_channels, decoded += n_channels) {
        size_t d = 0;
        for (; d + VEC_LANES <= n_channels; d += VEC_LANES) {
            __builtin_prefetch(codes + d + AHEAD_BYTES);
            vec_store(decoded + d, vec_mul(vec_load_i8(codes + d), vec_load(scales + d)));
        }
        for (; d < n_channels; d++)
            decoded[d] = channel_decode(codes[d], scales[d]);
    }
}

/* ---- Past the caches */

#if defined(__x86_64__)

#define LINE 64

static void stream_line(uint8_t *to, const uint8_t *from) { /* `to` is aligned */
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#elif defined(__AVX2__)
    for (size_t i = 0; i < LINE; i += 32)
        _mm256_stream_si256((__m256i *)(void *)(to + i), _mm256_loadu_si256((const __m256i *)(const void *)(from + i)));
#else
    for (size_t i = 0; i < LINE; i += 16)
        _mm_stream_si128((__m128i *)(void *)(to + i), _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
#endif
}

static void stream(void *to, const void *from, size_t size_bytes) {
    uint8_t *out = to;
    const uint8_t *in = from;
    size_t head = -(uintptr_t)out % LINE, i = head < size_bytes ? head : size_bytes;
    memcpy(out, in, i);
    for (; i + LINE <= size_bytes; i += LINE) {
        __builtin_prefetch(in + i + AHEAD_BYTES);
        stream_line(out + i, in + i);
    }
    memcpy(out + i, in + i, size_bytes - i);
}

static void stream_end(void) {
    _mm_sfence();
}

#else

/* Arm's cores notice that whole lines are written, and do not read them. */
static void stream(void *to, const void *from, size_t size_bytes) {
    memcpy(to, from, size_bytes);
}

static void stream_end(void) {}

#endif

const ChannelKernels SIMD_NAME(channel_kernels) = {find_largest, encode, decode, stream, stream_end};
