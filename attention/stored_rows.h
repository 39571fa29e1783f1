/* Keys and values as a span stores them, read a vector at a time: what row_load() gives is to the bit what the codec's
 * decoder gives. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_STORED_ROWS_H
#define STOWKV_STORED_ROWS_H

#include "attention/attention.h"
#include "kvcache/codec_format.h"
#include "model/base/simd_int.h"

#include <math.h>

/* Rows of FP16 can be read where they are. */
static inline bool is_half(const KvCodec *codec) {
    return kv_codec_id(codec) == KV_F16;
}

/* How many of `n` tokens from `first` on lie in one group. */
static inline size_t rest_of_group(const KvSpan *span, size_t first, size_t n) {
    size_t rest = span->group_k.n_tokens - first % span->group_k.n_tokens;
    return n < rest ? n : rest;
}

/* The record that holds a token. */
static inline const uint8_t *record_of(const KvSpan *span, KvSide side, size_t token) {
    size_t index = token / span->group_k.n_tokens;
    return side == KV_KEYS ? span->keys + index * span->key_bytes : span->values + index * span->value_bytes;
}

/* Tokens [first, first + n) of a span's keys or values, which lie in one group, to F32. */
static inline void decode_stored(const KvSpan *span, KvSide side, size_t first, size_t n,
                                 float *out) { // (n, head_dim)
    const KvGroup *group = side == KV_KEYS ? &span->group_k : &span->group_v;
    KvDecode *decode = kv_codec_decoder(side == KV_KEYS ? span->codec_k : span->codec_v, SIMD_THIS_LEVEL);
    decode(side, group, record_of(span, side, first), first % group->n_tokens, n, out);
}

/* How a token's row is stored. A constant: inlined with it, row_load() is left with that form's steps. */
typedef enum RowForm {
    ROW_FLOAT, /* decoded */
    ROW_HALF,
    ROW_I8_CHANNEL, /* scale of the channel * code */
    ROW_I8_TOKEN,   /* scale of the token * code */
    ROW_Q8_0,
    ROW_Q4_0,
    ROW_Q4_1,
    ROW_I4_CHANNEL, /* minimum + scale * code, both of the channel */
    ROW_I4_BLOCK,   /* both of a block of the row */
    ROW_NF4
} RowForm;

/* Consecutive tokens of one group, and what their codes are scaled with, in F32. What a form does not need is not set.
 */
typedef struct StoredRows {
    const uint8_t *rows; /* of the first token */
    size_t row_bytes;
    const float *scales, *minima; /* by channel, or (tokens, blocks_per_row) */
    size_t blocks_per_row;
    size_t block_shift; /* ROW_I4_BLOCK: a block is 32 << block_shift elements, or the whole row */
} StoredRows;

static const float WHOLE_LEVELS[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const float Q4_0_LEVELS[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

/* A block's 16 values, rounded as the decoders round: scale * level, then + minimum where there is one. */
INLINE VecTable scaled_levels(const float levels[16], float scale, bool has_minimum, float minimum) {
    VecTable table = vec_table(levels);
    for (size_t i = 0; i < 16 / VEC_LANES; i++) {
        table.part[i] = vec_mul(vec_set1(scale), table.part[i]);
        if (has_minimum)
            table.part[i] = vec_add(table.part[i], vec_set1(minimum));
    }
    return table;
}

/* Codes of one of GGML's blocks of 32, the low halves of 16 bytes, then the high ones. */
INLINE VecInt ggml_codes(const uint8_t packed[16], size_t at) {
    return at < 16 ? vec_u8_codes(packed + at) : vec_high_codes(packed + at - 16);
}

/* Elements of a row that are loaded together: whole blocks of 32. */
#define ROW_STEP (4 * VEC_LANES > 32 ? 4 * VEC_LANES : 32)

/* The vector at element d + i of token t. d is a multiple of ROW_STEP, and i a constant below it where the loads of a
 * block are to share its scale. */
INLINE Vec row_load(RowForm form, const StoredRows *rows, size_t t, size_t d, size_t i) {
    const uint8_t *row = rows->rows + t * rows->row_bytes, *packed = row + d / 2 + i / 2;
    size_t at = d + i, block = d / 32 + i / 32, first = t * rows->blocks_per_row;
    const float *scales = rows->scales, *minima = rows->minima;
    switch (form) {
    case ROW_FLOAT:
        return vec_load((const float *)(const void *)row + at);
    case ROW_HALF:
        return vec_load_half((const uint16_t *)(const void *)row + at);
    case ROW_I8_CHANNEL:
        return vec_mul(vec_load(scales + at), vec_load_i8((const int8_t *)row + at));
    case ROW_I8_TOKEN:
        return vec_mul(vec_set1(scales[t]), vec_load_i8((const int8_t *)row + at));
    case ROW_Q8_0:
        return vec_mul(vec_set1(scales[first + block]), vec_load_i8((const int8_t *)row + block * 34 + 2 + i % 32));
    case ROW_Q4_0:
        return vec_lookup(scaled_levels(Q4_0_LEVELS, scales[first + block], false, 0),
                          ggml_codes(row + block * 18 + 2, i % 32));
    case ROW_Q4_1:
        return vec_lookup(scaled_levels(WHOLE_LEVELS, scales[first + block], true, minima[first + block]),
                          ggml_codes(row + block * 20 + 4, i % 32));
    case ROW_I4_CHANNEL:
        return vec_add(vec_mul(vec_load(scales + at), vec_lookup(vec_table(WHOLE_LEVELS), vec_packed_codes(packed))),
                       vec_load(minima + at));
    case ROW_I4_BLOCK:
        block = first + (block >> rows->block_shift);
        return vec_lookup(scaled_levels(WHOLE_LEVELS, scales[block], true, minima[block]), vec_packed_codes(packed));
    case ROW_NF4:
        return vec_lookup(scaled_levels(KV_NF4_LEVELS, scales[first + block / 2], false, 0), vec_packed_codes(packed));
    }
    return vec_zero();
}

static inline StoredRows decoded_rows(const float *rows, size_t head_dim) {
    return (StoredRows){.rows = (const uint8_t *)rows, .row_bytes = head_dim * sizeof *rows};
}

/* The first n < VEC_LANES of them, of rows that are not encoded. */
INLINE Vec row_load_partial(RowForm form, const StoredRows *rows, size_t t, size_t d, size_t n) {
    const uint8_t *row = rows->rows + t * rows->row_bytes;
    return form == ROW_HALF ? vec_load_half_partial((const uint16_t *)(const void *)row + d, n)
                            : vec_load_partial((const float *)(const void *)row + d, n);
}

#endif
