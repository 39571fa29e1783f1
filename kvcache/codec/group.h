/* What is encoded together: the types that codecs, their formats and their parts have in common. */
#ifndef STOWKV_CODEC_GROUP_H
#define STOWKV_CODEC_GROUP_H

#include "kvcache/codec/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_CODEC_ID(id, ...) KV_##id,
typedef enum KvCodecId { KV_CODECS(KV_CODEC_ID) KV_CODEC_COUNT } KvCodecId;
#undef KV_CODEC_ID

typedef enum KvSide { KV_KEYS, KV_VALUES } KvSide;
#define KV_SIDES 2

/* The shape of what is encoded together. */
typedef struct KvGroup {
    size_t n_tokens; /* 32 or 64 */
    size_t head_dim; /* elements of a row; in a cache, its row_dim (layout.h) */
    size_t block;    /* elements along head_dim that share a scale, for codecs that leave it open: 32 or 64 */
    bool rotated;    /* transformed by kv_rotate() before encoding */
} KvGroup;

#define KV_MAX_GROUP 64

static inline bool kv_is_group_size(size_t n) {
    return n == 32 || n == 64;
}

/* Decodes tokens [first, first + count) as they were encoded: still rotated where group->rotated. */
typedef void KvDecode(KvSide side, const KvGroup *group, const uint8_t *record, size_t first, size_t count,
                      float *out); // (count, head_dim)

#endif
