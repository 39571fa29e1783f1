/* Keys and values of tokens as a span stores them, read a vector at a time: what load_stored() gives is to the bit what
 * the codec's decoder gives. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_STORED_TOKENS_H
#define STOWKV_STORED_TOKENS_H

#include "attention/query.h"
#include "base/checked.h"
#include "base/simd/integers.h"
#include "kvcache/codec/format.h"

#include <math.h>

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
    KvDecode *decode = kv_codec_decoder(kv_codec(span->side[side].codec), SIMD_THIS_LEVEL);
    decode(side, group, record_of(span, side, first), first % group->n_tokens, n, out);
}

/* How tokens are stored. A constant: inlined with it, load_stored() is left with that form's steps. */
typedef enum StoredForm {
    STORED_FLOAT, /* F32, decoded already */
    STORED_HALF,
    STORED_NF4,
    STORED_FP8
} StoredForm;

/* Consecutive tokens of one group, one side. */
typedef struct StoredTokens {
    const uint8_t *tokens; /* (n_tokens, token_bytes) */
    size_t token_bytes;
    const float *scales; /* STORED_NF4: (n_tokens, head_dim / 64); STORED_FP8: (n_tokens), 2^8 times the record's */
} StoredTokens;

static inline StoredTokens decoded_tokens(const float *tokens, size_t head_dim) {
    return (StoredTokens){.tokens = (const uint8_t *)tokens, .token_bytes = head_dim * sizeof *tokens};
}

/* The 16 values of an nf4 block's codes, rounded as the decoder rounds. */
INLINE VecTable scaled_levels(float scale) {
    VecTable table = vec_table(KV_NF4_LEVELS);
    for (size_t i = 0; i < 16 / VEC_LANES; i++)
        table.part[i] = vec_mul(vec_set1(scale), table.part[i]);
    return table;
}

/* Elements of a token that are loaded together, a multiple of 32. */
#define STORED_STEP (4 * VEC_LANES > 32 ? 4 * VEC_LANES : 32)

/* The vector at element d + i of token t. d is a multiple of STORED_STEP. The loads of an nf4 block share its scale
 * where i is a constant below STORED_STEP. */
INLINE Vec load_stored(StoredForm form, const StoredTokens *stored, size_t t, size_t d, size_t i) {
    const uint8_t *token = stored->tokens + t * stored->token_bytes;
    if (form == STORED_FLOAT)
        return vec_load((const float *)(const void *)token + d + i);
    if (form == STORED_HALF)
        return vec_load_half((const uint16_t *)(const void *)token + d + i);
    if (form == STORED_FP8)
        return vec_mul(vec_set1(stored->scales[t]), vec_load_e4m3(token + d + i));
    size_t n_blocks = stored->token_bytes / (KV_NF4_BLOCK / 2), block = d / KV_NF4_BLOCK + i / KV_NF4_BLOCK;
    return vec_lookup(scaled_levels(stored->scales[t * n_blocks + block]), vec_packed_codes(token + d / 2 + i / 2));
}

/* Elements [d, d + n), n < VEC_LANES, of forms whose head_dim may be any: STORED_FLOAT and STORED_HALF. */
INLINE Vec load_stored_partial(StoredForm form, const StoredTokens *stored, size_t t, size_t d, size_t n) {
    const uint8_t *token = stored->tokens + t * stored->token_bytes;
    return form == STORED_HALF ? vec_load_half_partial((const uint16_t *)(const void *)token + d, n)
                               : vec_load_partial((const float *)(const void *)token + d, n);
}

#endif
