/* Keys and values as a span stores them. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_STORED_ROWS_H
#define STOWKV_STORED_ROWS_H

#include "kvcache/kvcache.h"
#include "model/base/simd.h"

/* Rows of FP16 can be read where they are. */
static inline bool is_half(const KvCodec *codec) {
    return kv_codec_id(codec) == KV_F16;
}

/* How many of `n` tokens from `first` on lie in one group. */
static inline size_t rest_of_group(const KvSpan *span, size_t first, size_t n) {
    size_t rest = span->group_k.n_tokens - first % span->group_k.n_tokens;
    return n < rest ? n : rest;
}

/* Tokens [first, first + n) of a span's keys or values, which lie in one group, to F32. */
static inline void decode_stored(const KvSpan *span, KvSide side, size_t first, size_t n,
                                 float *out) { // (n, head_dim)
    const KvGroup *group = side == KV_KEYS ? &span->group_k : &span->group_v;
    const uint8_t *records = side == KV_KEYS ? span->keys : span->values;
    size_t bytes = side == KV_KEYS ? span->key_bytes : span->value_bytes;
    KvDecode *decode = kv_codec_decoder(side == KV_KEYS ? span->codec_k : span->codec_v, SIMD_THIS_LEVEL);
    decode(side, group, records + first / group->n_tokens * bytes, first % group->n_tokens, n, out);
}

#endif
