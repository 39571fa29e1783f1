/* Decoding of every codec, compiled once for each instruction set. A row goes in pieces: codes are unpacked to bytes,
 * then scaled a vector at a time, with a product and a sum that round apart, so that the instruction sets agree bit for
 * bit. One function does all scaled formats: inlined with a row of KV_FORMATS, it is left with that format's steps. */
#include "kvcache/codec/decode.h"

#include "base/block_decode.h"
#include "base/checked.h"
#include "base/simd/integers.h"
#include "kvcache/codec/format.h"
#include "kvcache/codec/fp8.h"
#include "kvcache/codec/half.h"

/* Vector types rather than loops over bytes: see block_decode.c. */
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(32)));

/* Splits each of n bytes into its part below bit `bits` and the rest, in this order: 2 * n bytes, of which whole
 * vectors are written. */
INLINE void split_bytes(const uint8_t *bytes, size_t n, int bits, uint8_t *out) {
    for (size_t i = 0; i < n; i += 16) {
        Bytes both, low, high;
        memcpy(&both, bytes + i, sizeof both);
        low = both & (uint8_t)((1 << bits) - 1);
        high = both >> (uint8_t)bits;
        Bytes front = __builtin_shufflevector(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        Bytes back = __builtin_shufflevector(low, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        memcpy(out + i * 2, &front, sizeof front);
        memcpy(out + i * 2 + 16, &back, sizeof back);
    }
}

/* `width` codes (16, 32 or 64), one a byte: in `scratch`, or where they are. */
INLINE const uint8_t *codes_of(const uint8_t *packed, int bits, size_t width, uint8_t scratch[KV_PIECE]) {
    uint8_t bytes[KV_PIECE + 1] = {0}, nibbles[KV_PIECE], pairs[KV_PIECE];
    if (bits == 8)
        return packed;
    memcpy(bytes, packed, width * (size_t)bits / 8);
    if (8 % bits != 0) {
        for (size_t j = 0; j < width; j++) {
            uint16_t two; /* codes lie in two bytes at most */
            memcpy(&two, bytes + j * (size_t)bits / 8, sizeof two);
            scratch[j] = (uint8_t)(two >> j * (size_t)bits % 8 & ((1u << bits) - 1));
        }
    } else if (bits == 4) {
        split_bytes(bytes, width / 2, 4, scratch);
    } else if (bits == 2) {
        split_bytes(bytes, width / 4, 4, nibbles);
        split_bytes(nibbles, width / 2, 2, scratch);
    } else {
        split_bytes(bytes, width / 8, 4, nibbles);
        split_bytes(nibbles, width / 4, 2, pairs);
        split_bytes(pairs, width / 2, 1, scratch);
    }
    return scratch;
}

/* fp8_to_half_bits(), 16 at a time. */
INLINE void fp8_to_halves(const uint8_t *codes, size_t width, uint16_t halves[KV_PIECE]) {
    for (size_t j = 0; j < width; j += 16) {
        Bytes bytes;
        memcpy(&bytes, codes + j, sizeof bytes);
        Halves code = __builtin_convertvector(bytes, Halves), magnitude = code & 0x7f;
        Halves is_nan = (Halves)(magnitude == FP8_NAN);
        Halves half = (code & 0x80) << 8 | magnitude << 7 | (is_nan & 0x7e00);
        memcpy(halves + j, &half, sizeof half);
    }
}

INLINE Vec vector_of_codes(KvCodeKind kind, const uint8_t *codes, const uint16_t *halves) {
    switch (kind) {
    case KV_CODE_SIGNED:
        return vec_load_i8((const int8_t *)codes);
    case KV_CODE_UNSIGNED:
        return vec_load_u8(codes);
    case KV_CODE_SIGN:
        return vec_sub(vec_set1(1.0f), vec_mul(vec_set1(2.0f), vec_load_u8(codes)));
    case KV_CODE_E4M3:
        return vec_load_half(halves);
    case KV_CODE_NF4:
        return vec_lookup(vec_table(KV_NF4_LEVELS), vec_u8_codes(codes));
    case KV_CODE_HALF: /* rows of tensor types */
    case KV_CODE_OFFSET:
        break;
    }
    return vec_zero();
}

/* By channel there is a step for each code, else the first is for all. */
INLINE void decode_piece(const KvFormat *format, const uint8_t *packed, size_t width, const KvSteps *steps,
                         bool by_channel, float *out) {
    uint8_t scratch[KV_PIECE];
    uint16_t halves[KV_PIECE];
    const uint8_t *codes = codes_of(packed, format->bits, width, scratch);
    if (format->kind == KV_CODE_E4M3)
        fp8_to_halves(codes, width, halves);
    for (size_t j = 0; j < width; j += VEC_LANES) {
        Vec code = vector_of_codes(format->kind, codes + j, halves + j);
        Vec y = vec_mul(by_channel ? vec_load(steps->scale + j) : vec_set1(steps->scale[0]), code);
        if (format->kind == KV_CODE_UNSIGNED)
            y = vec_add(y, by_channel ? vec_load(steps->minimum + j) : vec_set1(steps->minimum[0]));
        vec_store(out + j, y);
    }
}

/* A piece of any width up to KV_PIECE: usual widths are constants for the compiler, others are padded. */
INLINE void decode_piece_of(const KvFormat *format, const uint8_t *packed, size_t width, const KvSteps *steps,
                            bool by_channel, float *out) {
    if (width == 64) {
        decode_piece(format, packed, 64, steps, by_channel, out);
    } else if (width == 32) {
        decode_piece(format, packed, 32, steps, by_channel, out);
    } else if (width == 16) {
        decode_piece(format, packed, 16, steps, by_channel, out);
    } else {
        uint8_t padded[KV_PIECE] = {0};
        float decoded[KV_PIECE];
        memcpy(padded, packed, width * (size_t)format->bits / 8);
        decode_piece(format, padded, KV_PIECE, steps, by_channel, decoded);
        memcpy(out, decoded, width * sizeof *out);
    }
}

INLINE void load_halves(const uint8_t *from, size_t n, float *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)from;
    for (size_t j = 0; j < n; j += VEC_LANES)
        vec_store(out + j, n - j >= VEC_LANES ? vec_load_half(halves + j) : vec_load_half_partial(halves + j, n - j));
}

/* n scales, and minima, from number `first` on; E4M3's times 2^8, since fp8_to_halves() gives 2^-8 times the value. */
INLINE void load_steps(const KvFormat *format, const KvRecordLayout *layout, const uint8_t *record, size_t first,
                       size_t n, KvSteps *steps) {
    if (format->kind == KV_CODE_NF4) {
        uint8_t code = record[KV_NF4_SCALES + first];
        float scale = half_load(record) + half_load(record + 2) * (float)code;
        steps->scale[0] = code == KV_NF4_SCALE_NAN ? half_to_float(HALF_NAN) : scale;
        return;
    }
    load_halves(record + first * sizeof(uint16_t), n, steps->scale);
    if (format->kind == KV_CODE_UNSIGNED)
        load_halves(record + layout->minima + first * sizeof(uint16_t), n, steps->minimum);
    for (size_t j = 0; j < n && format->kind == KV_CODE_E4M3; j++)
        steps->scale[j] *= 256.0f;
}

INLINE void decode_scaled(const KvFormat *format, KvSide side, const KvGroup *group, const uint8_t *record,
                          size_t first, size_t count, float *out) {
    KvRecordLayout layout = kv_record_layout(format, side, group);
    size_t head_dim = group->head_dim, bits = (size_t)format->bits;
    const uint8_t *rows = record + layout.codes + first * layout.token_bytes;
    KvSteps steps = {0};
    if (format->keys_by_channel && layout.by_channel) {
        for (size_t begin = 0; begin < head_dim; begin += KV_PIECE) {
            size_t width = at_most(head_dim - begin, KV_PIECE);
            load_steps(format, &layout, record, begin, width, &steps);
            for (size_t t = 0; t < count; t++)
                decode_piece_of(format, rows + t * layout.token_bytes + begin * bits / 8, width, &steps, true,
                                out + t * head_dim + begin);
        }
        return;
    }
    for (size_t i = 0; i < count * layout.blocks_per_row; i++) {
        size_t at = i * layout.block;
        load_steps(format, &layout, record, first * layout.blocks_per_row + i, 1, &steps);
        for (size_t end = at + layout.block; at < end; at += KV_PIECE)
            decode_piece_of(format, rows + at * bits / 8, at_most(end - at, KV_PIECE), &steps, false, out + at);
    }
}

INLINE void decode_tensor(const KvFormat *format, const KvGroup *group, const uint8_t *record, size_t first,
                          size_t count, float *out) {
    Tensor rows = {.type = format->type, .shape = {group->head_dim, group->n_tokens, 1, 1}, .data = record};
    SIMD_NAME(tensor_decoders)[format->type](&rows, first * group->head_dim, count * group->head_dim, out);
}

#define DEFINE_DECODER(id, ...)                                                                                        \
    static void decode_##id(KvSide side, const KvGroup *group, const uint8_t *record, size_t first, size_t count,      \
                            float *out) {                                                                              \
        if (KV_FORMATS[KV_##id].type != KV_SCALED)                                                                     \
            decode_tensor(&KV_FORMATS[KV_##id], group, record, first, count, out);                                     \
        else                                                                                                           \
            decode_scaled(&KV_FORMATS[KV_##id], side, group, record, first, count, out);                               \
    }
KV_CODECS(DEFINE_DECODER)

#define DECODER(id, ...) [KV_##id] = decode_##id,
KvDecode *const SIMD_NAME(kv_decoders)[KV_CODEC_COUNT] = {KV_CODECS(DECODER)};
