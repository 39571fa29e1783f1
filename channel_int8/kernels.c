/* See kernels.h. */
#include "channel_int8/kernels.h"

#include "base/simd/integers.h"
#include "channel_int8/code.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Rows that are looked through, and coded, together where they are long: the largest magnitudes of all channels, or
 * what scales them, are loaded once for them, and do not fit the first cache beside a row. Short ones are read one
 * behind the other, which hardware prefetchers follow best; software's make both slower, and copies and decoding
 * faster. */
#define ROWS          4
#define LONG_CHANNELS 1024
#define AHEAD_BYTES   8192

/* ---- What vectors of integers lack */

/* The lowest bytes of four vectors' lanes, which are numbers of 8 bits. */
static inline VecInt pack_bytes(const VecInt x[4]) {
#if defined(__AVX512F__)
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i front = _mm512_packs_epi32(x[0], x[1]), back = _mm512_packs_epi32(x[2], x[3]);
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(front, back));
#elif defined(__AVX2__)
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i front = _mm256_packs_epi32(x[0], x[1]), back = _mm256_packs_epi32(x[2], x[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(front, back), order);
#elif defined(__SSE2__)
    __m128i front = _mm_packs_epi32((__m128i)x[0], (__m128i)x[1]);
    __m128i back = _mm_packs_epi32((__m128i)x[2], (__m128i)x[3]);
    return (VecInt)_mm_packs_epi16(front, back);
#elif defined(__ARM_FEATURE_DOTPROD)
    int16x8_t front = vcombine_s16(vmovn_s32(x[0]), vmovn_s32(x[1]));
    int16x8_t back = vcombine_s16(vmovn_s32(x[2]), vmovn_s32(x[3]));
    return vreinterpretq_s32_s8(vcombine_s8(vmovn_s16(front), vmovn_s16(back)));
#else
    int8_t bytes[4 * VEC_LANES];
    for (int i = 0; i < 4 * VEC_LANES; i++)
        bytes[i] = (int8_t)x[i / VEC_LANES][i % VEC_LANES];
    return vec_int_load(bytes);
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

/* ---- Past the caches: `to` is aligned to a vector then, and all of a line is written at once. Arm's cores notice that
 * whole lines are written, and do not read them first. */

#define LINE         CHANNEL_LINE /* bytes; of codes, elements */
#define LINE_VECTORS (LINE / sizeof(VecInt))

INLINE void store_vector(void *to, VecInt x, bool past_caches) {
#if defined(__AVX512F__)
    if (past_caches) {
        _mm512_stream_si512(to, x);
        return;
    }
#elif defined(__AVX2__)
    if (past_caches) {
        _mm256_stream_si256(to, x);
        return;
    }
#elif defined(__SSE2__)
    if (past_caches) {
        _mm_stream_si128(to, (__m128i)x);
        return;
    }
#endif
    (void)past_caches;
    vec_int_store(to, x);
}

/* Other threads may look for what was written past the caches behind this. */
static void end_of_stores(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Elements of so many bytes until `to` is aligned to a line; n at most. */
static size_t head_of(const void *to, size_t element_bytes, size_t n) {
    size_t head = -(uintptr_t)to % LINE / element_bytes;
    return head < n ? head : n;
}

/* The channel a line further; the first ones follow the last one, of few several times. */
INLINE size_t next_channel(size_t d, size_t n_channels) {
    d += LINE;
    if (d >= n_channels)
        d = d < 2 * n_channels ? d - n_channels : d % n_channels;
    return d;
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

/* ---- Codes, a line of them at a time, from a channel on and over the ends of rows */

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

static __attribute__((noinline)) void encode_few(const float *x, const float *scales, const float *inverses, size_t n,
                                                 int8_t *codes) {
    for (size_t i = 0; i < n; i++)
        codes[i] = channel_code(x[i], scales[i], inverses[i]);
}

INLINE void encode_line(const float *x, const float *scales, const float *inverses, int8_t *codes, bool past_caches) {
    VecInt worst = vec_int_zero(), line[LINE_VECTORS];
    for (size_t i = 0; i < LINE_VECTORS; i++) {
        VecInt four[4];
        for (size_t j = 0; j < 4; j++) {
            size_t at = (4 * i + j) * VEC_LANES;
            four[j] = encode_vector(vec_load(x + at), vec_load(inverses + at), &worst);
        }
        line[i] = pack_bytes(four);
    }
    if (__builtin_expect(is_unsure(worst), false)) {
        int8_t again[LINE];
        encode_few(x, scales, inverses, LINE, again);
        for (size_t i = 0; i < LINE_VECTORS; i++)
            line[i] = vec_int_load(again + i * sizeof(VecInt));
    }
    for (size_t i = 0; i < LINE_VECTORS; i++)
        store_vector(codes + i * sizeof(VecInt), line[i], past_caches);
}

/* From an element on that is the first one of a row. */
INLINE void encode_lines(const float *keys, const float *scales, const float *inverses, size_t n, size_t n_channels,
                         int8_t *codes, bool past_caches) {
    size_t i = head_of(codes, sizeof *codes, n), d = i % n_channels;
    encode_few(keys, scales, inverses, i, codes);
    for (; i + LINE <= n; i += LINE, d = next_channel(d, n_channels))
        encode_line(keys + i, scales + d, inverses + d, codes + i, past_caches);
    encode_few(keys + i, scales + d, inverses + d, n - i, codes + i);
}

INLINE void encode_all(const float *keys, const float *scales, const float *inverses, size_t n_tokens,
                       size_t n_channels, int8_t *codes, bool past_caches) {
    bool has_lines = n_channels % LINE == 0 && (uintptr_t)codes % LINE == 0;
    for (; n_channels > LONG_CHANNELS && has_lines && n_tokens >= ROWS; n_tokens -= ROWS) {
        for (size_t d = 0; d < n_channels; d += LINE)
            for (size_t r = 0; r < ROWS; r++)
                encode_line(keys + r * n_channels + d, scales + d, inverses + d, codes + r * n_channels + d,
                            past_caches);
        keys += ROWS * n_channels;
        codes += ROWS * n_channels;
    }
    encode_lines(keys, scales, inverses, n_tokens * n_channels, n_channels, codes, past_caches);
    end_of_stores();
}

static void encode(const float *keys, const float *scales, const float *inverses, size_t n_tokens, size_t n_channels,
                   int8_t *codes, bool past_caches) {
    if (past_caches)
        encode_all(keys, scales, inverses, n_tokens, n_channels, codes, true);
    else
        encode_all(keys, scales, inverses, n_tokens, n_channels, codes, false);
}

/* ---- And back */

static void decode_few(const int8_t *codes, const float *scales, size_t n, float *decoded) {
    for (size_t i = 0; i < n; i++)
        decoded[i] = channel_decode(codes[i], scales[i]);
}

INLINE void decode_all(const int8_t *codes, const float *scales, size_t n, size_t n_channels, float *decoded,
                       bool past_caches) {
    size_t i = head_of(decoded, sizeof *decoded, n), d = i % n_channels;
    decode_few(codes, scales, i, decoded);
    for (; i + LINE <= n; i += LINE, d = next_channel(d, n_channels)) {
        __builtin_prefetch(codes + i + AHEAD_BYTES);
        for (size_t j = 0; j < LINE; j += VEC_LANES) {
            Vec x = vec_mul(vec_load_i8(codes + i + j), vec_load(scales + d + j));
            store_vector(decoded + i + j, vec_bits(x), past_caches);
        }
    }
    decode_few(codes + i, scales + d, n - i, decoded + i);
    end_of_stores();
}

static void decode(const int8_t *codes, const float *scales, size_t n_tokens, size_t n_channels, float *decoded,
                   bool past_caches) {
    if (past_caches)
        decode_all(codes, scales, n_tokens * n_channels, n_channels, decoded, true);
    else
        decode_all(codes, scales, n_tokens * n_channels, n_channels, decoded, false);
}

/* ---- The same reads and writes without arithmetic */

/* Reads and writes so many lines n times. The result depends on all that is not written. */
INLINE uint32_t move_lines(const uint8_t *from, size_t reads, uint8_t *to, size_t writes, size_t n, bool past_caches) {
    VecInt bits = vec_int_zero();
    for (size_t i = 0; i < n; i++, from += reads * LINE, to += writes * LINE) {
        if (writes >= reads)
            __builtin_prefetch(from + AHEAD_BYTES);
        for (size_t at = 0; at < LINE; at += sizeof(VecInt)) {
            VecInt x = vec_int_load(from + at);
            for (size_t r = 1; r < reads; r++)
                x = vec_int_or(x, vec_int_load(from + r * LINE + at));
            for (size_t w = 0; w < writes; w++)
                store_vector(to + w * LINE + at, x, past_caches);
            bits = writes == 0 ? vec_int_or(bits, x) : bits;
        }
    }
    end_of_stores();
    return (uint32_t)vec_int_largest(bits);
}

INLINE uint32_t move_all(ChannelMove move, const void *from, void *to, size_t n_lines, bool past_caches) {
    switch (move) {
    case CHANNEL_MOVE_SCALES:
        return move_lines(from, 4, to, 0, n_lines, past_caches);
    case CHANNEL_MOVE_CODES:
        return move_lines(from, 4, to, 1, n_lines, past_caches);
    case CHANNEL_MOVE_DECODE:
        return move_lines(from, 1, to, 4, n_lines, past_caches);
    default:
        return move_lines(from, 1, to, 1, 4 * n_lines, past_caches);
    }
}

static uint32_t move(ChannelMove move, const void *from, void *to, size_t n_lines, bool past_caches) {
    return past_caches ? move_all(move, from, to, n_lines, true) : move_all(move, from, to, n_lines, false);
}

const ChannelKernels SIMD_NAME(channel_kernels) = {find_largest, encode, decode, move};
