/* Keys and values as a span stores them, read a vector at a time: what row_load() gives is to the bit what the codec's
 * decoder gives. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_STORED_ROWS_H
#define STOWKV_STORED_ROWS_H

#include "attention/attention.h"
#include "base/checked.h"
#include "base/simd/integers.h"
#include "kvcache/codec/format.h"

#include <math.h>

/* Rows of FP16 can be read where they are. */
static inline bool is_half(const KvCodec *codec) {
    return kv_codec_id(codec) == KV_F16;
}

/* How many of `n` tokens from `first` on lie in one group. */
static inline size_t rest_of_group(const KvSpan *span, size_t first, size_t n) {
    size_t group_tokens = span->side[KV_KEYS].group.n_tokens;
    return at_most(n, group_tokens - first % group_tokens);
}

/* The record that holds a token. */
static inline const uint8_t *record_of(const KvSpan *span, KvSide side, size_t token) {
    const KvEncoding *encoding = &span->side[side];
    return span->records[side] + token / encoding->group.n_tokens * encoding->record_bytes;
}

/* Tokens [first, first + n) of a span's keys or values, which lie in one group, to F32. */
static inline void decode_stored(const KvSpan *span, KvSide side, size_t first, size_t n,
                                 float *out) { // (n, head_dim)
    const KvGroup *group = &span->side[side].group;
    KvDecode *decode = kv_codec_decoder(span->side[side].codec, SIMD_THIS_LEVEL);
    decode(side, group, record_of(span, side, first), first % group->n_tokens, n, out);
}

/* How a token's row is stored. A constant: inlined with it, row_load() is left with that form's steps. */
typedef enum RowForm {
    ROW_FLOAT, /* decoded */
    ROW_HALF,
    ROW_NF4,
    ROW_FP8
} RowForm;

/* Consecutive tokens of one group. */
typedef struct StoredRows {
    const uint8_t *rows; /* of the first token */
    size_t row_bytes;
    const float *scales; /* ROW_NF4: (tokens, head_dim / 64); ROW_FP8: (tokens), 2^8 times those of the record */
} StoredRows;

/* A block's 16 values, rounded as the decoder rounds. */
INLINE VecTable scaled_levels(float scale) {
    VecTable table = vec_table(KV_NF4_LEVELS);
    for (size_t i = 0; i < 16 / VEC_LANES; i++)
        table.part[i] = vec_mul(vec_set1(scale), table.part[i]);
    return table;
}

/* Elements of a row that are loaded together: whole blocks of 32. */
#define ROW_STEP (4 * VEC_LANES > 32 ? 4 * VEC_LANES : 32)

/* The vector at element d + i of token t. d is a multiple of ROW_STEP, and i a constant below it where the loads of a
 * block are to share its scale. */
INLINE Vec row_load(RowForm form, const StoredRows *rows, size_t t, size_t d, size_t i) {
    const uint8_t *row = rows->rows + t * rows->row_bytes;
    if (form == ROW_FLOAT)
        return vec_load((const float *)(const void *)row + d + i);
    if (form == ROW_HALF)
        return vec_load_half((const uint16_t *)(const void *)row + d + i);
    if (form == ROW_FP8)
        return vec_mul(vec_set1(rows->scales[t]), vec_load_e4m3(row + d + i));
    size_t n_blocks = rows->row_bytes / (KV_NF4_BLOCK / 2), block = d / KV_NF4_BLOCK + i / KV_NF4_BLOCK;
    return vec_lookup(scaled_levels(rows->scales[t * n_blocks + block]), vec_packed_codes(row + d / 2 + i / 2));
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
