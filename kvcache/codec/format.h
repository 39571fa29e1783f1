/* The layout of an encoded record, for encoders, decoders and whoever reads records without them. Two families:
 *
 * - rows of a tensor type of base (f16 and GGML's blocks), token after token;
 * - scales, then minima where the codec has them, then codes, each part beginning at an even offset:
 *
 *       scales  FP16: by channel (head_dim), or by token (n_tokens, head_dim / block)
 *       minima  FP16: the same
 *       codes   (n_tokens, head_dim) of `bits` bits; element j of a row is in the bits from j % (8 / bits) * bits on of
 *               byte j * bits / 8
 *
 *   nf4 has its scales in 8 bits behind two FP16 constants: scale = minimum + step * code, and 255 is NaN. */
#ifndef STOWKV_CODEC_FORMAT_H
#define STOWKV_CODEC_FORMAT_H

#include "base/tensor.h"
#include "kvcache/codec/codec.h"

typedef enum KvCodeKind {
    KV_CODE_TENSOR,   /* rows of a tensor type */
    KV_CODE_SIGNED,   /* scale * code, two's complement */
    KV_CODE_UNSIGNED, /* minimum + scale * code */
    KV_CODE_SIGN,     /* scale, or -scale where the bit is set */
    KV_CODE_E4M3,     /* scale * the number that the byte is in E4M3 */
    KV_CODE_NF4       /* scale * the level that the code names */
} KvCodeKind;

typedef struct KvFormat {
    KvCodeKind kind;
    TensorType type;      /* KV_CODE_TENSOR only */
    int bits;             /* of a code */
    bool keys_by_channel; /* K has a scale for each channel over the group's tokens */
    size_t block;         /* otherwise, elements of a row that share a scale; 0: all; KV_GROUP_BLOCK: KvGroup.block */
} KvFormat;

#define KV_GROUP_BLOCK SIZE_MAX

#define KV_PIECE 64 /* elements of a row that are encoded and decoded at once */

#define KV_NF4_BLOCK     64
#define KV_NF4_SCALES    4   /* offset of the 8-bit scales: the constants are in front */
#define KV_NF4_MAX_SCALE 254 /* the largest code of a scale that is a number */
#define KV_NF4_SCALE_NAN 255
#define KV_NF4_ZERO      7 /* the code of the level 0 */

static const KvFormat KV_FORMATS[KV_CODEC_COUNT] = {
    [KV_F16] = {.kind = KV_CODE_TENSOR, .type = TYPE_F16, .bits = 16},
    [KV_INT8] = {.kind = KV_CODE_SIGNED, .bits = 8, .keys_by_channel = true},
    [KV_INT8G] = {.kind = KV_CODE_UNSIGNED, .bits = 8, .keys_by_channel = true, .block = KV_GROUP_BLOCK},
    [KV_Q8_0] = {.kind = KV_CODE_TENSOR, .type = TYPE_Q8_0, .bits = 8},
    [KV_FP8] = {.kind = KV_CODE_E4M3, .bits = 8},
    [KV_Q5_1] = {.kind = KV_CODE_TENSOR, .type = TYPE_Q5_1, .bits = 5},
    [KV_Q5_0] = {.kind = KV_CODE_TENSOR, .type = TYPE_Q5_0, .bits = 5},
    [KV_INT4] = {.kind = KV_CODE_UNSIGNED, .bits = 4, .keys_by_channel = true, .block = KV_GROUP_BLOCK},
    [KV_Q4_1] = {.kind = KV_CODE_TENSOR, .type = TYPE_Q4_1, .bits = 4},
    [KV_Q4_0] = {.kind = KV_CODE_TENSOR, .type = TYPE_Q4_0, .bits = 4},
    [KV_NF4] = {.kind = KV_CODE_NF4, .bits = 4, .block = KV_NF4_BLOCK},
    [KV_INT2] = {.kind = KV_CODE_UNSIGNED, .bits = 2, .keys_by_channel = true, .block = KV_GROUP_BLOCK},
    [KV_BINARY] = {.kind = KV_CODE_SIGN, .bits = 1, .keys_by_channel = true},
};

/* QLoRA's 16 levels (Dettmers et al. 2023, appendix E): quantiles of the normal distribution, scaled to [-1, 1], with
 * an exact zero. */
static const float KV_NF4_LEVELS[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

typedef struct KvLayout {
    bool by_channel;
    size_t block;          /* elements of a row that share a scale, where not by_channel */
    size_t blocks_per_row; /* head_dim / block */
    size_t minima, codes;  /* offsets in bytes; scales are at 0, those of nf4 at KV_NF4_SCALES */
    size_t row_bytes;      /* of one token's codes */
    size_t size_bytes;     /* of the record */
} KvLayout;

/* Elements of a row that share a scale, where scales are not by channel. */
static inline size_t kv_format_block(const KvFormat *format, const KvGroup *group) {
    size_t block = format->block == KV_GROUP_BLOCK ? group->block : format->block;
    return block == 0 || block > group->head_dim ? group->head_dim : block;
}

static inline KvLayout kv_layout(const KvFormat *format, KvSide side, const KvGroup *group) {
    KvLayout layout = {.by_channel = format->keys_by_channel && side == KV_KEYS};
    layout.block = kv_format_block(format, group);
    layout.blocks_per_row = group->head_dim / layout.block;
    layout.row_bytes = group->head_dim * (size_t)format->bits / 8;
    size_t n_scales = layout.by_channel ? group->head_dim : group->n_tokens * layout.blocks_per_row;
    if (format->kind == KV_CODE_TENSOR) {
        const TensorTypeInfo *info = tensor_type_info(format->type);
        layout.row_bytes = group->head_dim / info->block_elements * info->block_bytes;
    } else if (format->kind == KV_CODE_NF4) {
        layout.codes = KV_NF4_SCALES + n_scales;
    } else {
        layout.minima = n_scales * sizeof(uint16_t);
        layout.codes = format->kind == KV_CODE_UNSIGNED ? layout.minima * 2 : layout.minima;
    }
    layout.size_bytes = layout.codes + group->n_tokens * layout.row_bytes;
    return layout;
}

#endif
