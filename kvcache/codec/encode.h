/* The encoders, which codec.c chooses from, and the packings that they share. They are plain loops that
 * compilers vectorize, compiled once for each instruction set. Values given to an encoder are rotated already. */
#ifndef STOWKV_CODEC_ENCODE_H
#define STOWKV_CODEC_ENCODE_H

#include "base/block_codes.h"
#include "base/simd/levels.h"
#include "kvcache/codec/fit.h"

typedef void KvEncode(const KvFormat *format, KvSide side, const KvGroup *group,
                      const float *values, // (n_tokens, head_dim)
                      uint8_t *record);

/* See kv_codec_encode_aware(). */
typedef void KvEncodeAware(const KvFormat *format, const KvGroup *group,
                           const float *factor, // (head_dim, head_dim)
                           const float *values, // (n_tokens, head_dim)
                           float *errors,       // (kv_aware_floats()) scratch
                           uint8_t *record);

SIMD_DECLARE(KvEncodeAware, kv_encode_aware, ); /* scaled.c */
SIMD_DECLARE(KvEncode, kv_encode_tensor, );     /* tensor.c */
SIMD_DECLARE(KvEncode, kv_encode_scaled, );     /* scaled.c */
SIMD_DECLARE(KvEncode, kv_encode_fitted, );     /* scaled.c; of kv_codec_is_fitted(), values alone */
SIMD_DECLARE(KvEncode, kv_encode_nf4, );        /* nf4.c */

/* n codes below 2^bits to n * bits / 8 bytes, the first code in the lowest bits. Widths that divide 8 have a
 * loop that vectorizes. */
static inline void pack_codes(const uint8_t *codes, size_t n, int bits, uint8_t *packed) {
    size_t per_byte = 8 / (size_t)bits, n_bytes = n * (size_t)bits / 8;
    unsigned stream = 0;
    int n_bits = 0; /* in the stream */
    for (size_t i = 0; i < n_bytes && 8 % bits == 0; i++) {
        unsigned byte = 0;
        for (size_t j = 0; j < per_byte; j++)
            byte |= (unsigned)codes[i * per_byte + j] << j * (size_t)bits;
        packed[i] = (uint8_t)byte;
    }
    for (size_t i = 0; i < n && 8 % bits != 0; i++) {
        stream |= (unsigned)codes[i] << n_bits;
        for (n_bits += bits; n_bits >= 8; n_bits -= 8, stream >>= 8)
            *packed++ = (uint8_t)stream;
    }
}

/* The inverse of pack_codes(). */
static inline void unpack_codes(const uint8_t *packed, size_t n, int bits, uint8_t *codes) {
    unsigned stream = 0;
    int n_bits = 0;
    for (size_t i = 0; i < n; i++, stream >>= bits, n_bits -= bits) {
        for (; n_bits < bits; n_bits += 8)
            stream |= (unsigned)*packed++ << n_bits;
        codes[i] = (uint8_t)(stream & ((1u << bits) - 1));
    }
}

/* 32 codes of 4 or 5 bits as GGML's blocks have them: the fifth bits, if any, then codes j and j + 16 in byte j. */
static inline void pack_block(const uint8_t codes[32], int bits, uint8_t *to) {
    if (bits == 5) {
        uint8_t fifth[32];
        for (size_t j = 0; j < 32; j++)
            fifth[j] = codes[j] >> 4;
        pack_codes(fifth, 32, 1, to);
        to += 4;
    }
    for (size_t j = 0; j < 16; j++)
        to[j] = (uint8_t)((codes[j] & 15) | codes[j + 16] << 4);
}

static inline void unpack_block(const uint8_t *from, int bits, uint8_t codes[32]) {
    unpack_nibbles(bits == 5 ? from + 4 : from, codes);
    if (bits == 5)
        add_fifth_bits(from, codes);
}

#endif
