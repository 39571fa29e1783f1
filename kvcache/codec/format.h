/* The formats of the table of codecs, and the layout of an encoded record, for encoders, decoders and whoever reads
 * records without them. There are two layouts:
 *
 * - rows of a tensor type of base/tensor.h (f16 and GGML's blocks), token after token;
 * - KV_SCALED: scales, then minima where the codec has them, then codes, each part beginning at an even offset:
 *
 *       scales  FP16: by channel (head_dim), or by token (n_tokens, head_dim / block)
 *       minima  FP16: the same
 *       codes   (n_tokens, head_dim) of `bits` bits, each row a stream of bits: element j of a row is in bits
 *               j * bits to (j + 1) * bits - 1 of it, of which bit i is bit i % 8 of byte i / 8
 *
 *   nf4 has its scales in 8 bits behind two FP16 constants: scale = minimum + step * code, and 255 is NaN. */
#ifndef STOWKV_CODEC_FORMAT_H
#define STOWKV_CODEC_FORMAT_H

#include "base/tensor.h"
#include "kvcache/codec/group.h"

typedef enum KvCodeKind {
    KV_CODE_HALF,     /* FP16 itself, without a scale */
    KV_CODE_SIGNED,   /* scale * code, two's complement */
    KV_CODE_OFFSET,   /* scale * (code - 2^(bits - 1)) */
    KV_CODE_UNSIGNED, /* minimum + scale * code */
    KV_CODE_SIGN,     /* scale, or -scale where the bit is set */
    KV_CODE_E4M3,     /* scale * the byte read as E4M3 */
    KV_CODE_NF4       /* scale * the level that the code names */
} KvCodeKind;

/* Whether elements are a linear function of their codes, so that products with codes are integer products. */
#define KV_IS_LINEAR(kind)                                                                                             \
    ((kind) == KV_CODE_SIGNED || (kind) == KV_CODE_OFFSET || (kind) == KV_CODE_UNSIGNED || (kind) == KV_CODE_SIGN)

/* Values of the table's columns keys, block and layout. */
#define KV_BY_CHANNEL  true
#define KV_BY_TOKEN    false
#define KV_WHOLE_ROW   0
#define KV_GROUP_BLOCK SIZE_MAX
#define KV_SCALED      TENSOR_TYPE_COUNT

typedef struct KvFormat {
    KvCodeKind kind;
    int bits;             /* of a code */
    bool keys_by_channel; /* K has a scale for each channel over the group's tokens */
    size_t block;         /* otherwise, elements of a row that share a scale; or KV_WHOLE_ROW, KV_GROUP_BLOCK */
    TensorType type;      /* the record is rows of it; or KV_SCALED */
} KvFormat;

#define KV_PIECE 64 /* elements of a row that are encoded and decoded at once */

#define KV_NF4_BLOCK     64
#define KV_NF4_SCALES    4   /* offset of the 8-bit scales: the constants are in front */
#define KV_NF4_MAX_SCALE 254 /* the largest code of a finite scale */
#define KV_NF4_SCALE_NAN 255
#define KV_NF4_ZERO      7 /* the code of the level 0 */

#define KV_FORMAT(id, name, kind, bits, keys, block, layout, purpose) {kind, bits, keys, block, layout},
static const KvFormat KV_FORMATS[KV_CODEC_COUNT] = {KV_CODECS(KV_FORMAT)};
#undef KV_FORMAT

/* Whether scales and minima are fitted (fit_values.h) by the encoders for attention: linear codes of so few bits that
 * it pays. */
static inline bool kv_format_is_fitted(const KvFormat *format, KvSide side) {
    return format->type == KV_SCALED && format->kind == KV_CODE_UNSIGNED && format->block == KV_GROUP_BLOCK &&
           format->bits <= (side == KV_KEYS ? 2 : 3);
}

/* QLoRA's 16 levels (Dettmers et al. 2023, appendix E): quantiles of the normal distribution, scaled to [-1, 1], with
 * an exact zero. */
/* clang-format off */
#define KV_NF4_LEVEL_LIST \
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, \
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f, \
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f, \
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f
/* clang-format on */
static const float KV_NF4_LEVELS[16] = {KV_NF4_LEVEL_LIST};

/* Scales and minima for the codes of a piece of a row. */
typedef struct KvSteps {
    float scale[KV_PIECE], minimum[KV_PIECE];
} KvSteps;

/* The fewest codes of this width that fill whole bytes. */
static inline size_t kv_codes_of_whole_bytes(int bits) {
    return bits % 8 == 0 ? 1 : bits % 4 == 0 ? 2 : bits % 2 == 0 ? 4 : 8;
}

typedef struct KvRecordLayout {
    bool by_channel;
    size_t block;          /* elements of a row that share a scale, where not by_channel */
    size_t blocks_per_row; /* head_dim / block */
    size_t minima, codes;  /* offsets in bytes; scales are at 0, those of nf4 at KV_NF4_SCALES */
    size_t token_bytes;    /* of one token's codes */
    size_t size_bytes;     /* of the record */
} KvRecordLayout;

/* Elements of a row that share a scale, where scales are not by channel. */
static inline size_t kv_format_block(const KvFormat *format, const KvGroup *group) {
    size_t block = format->block == KV_GROUP_BLOCK ? group->block : format->block;
    return block == KV_WHOLE_ROW || block > group->head_dim ? group->head_dim : block;
}

static inline KvRecordLayout kv_record_layout(const KvFormat *format, KvSide side, const KvGroup *group) {
    KvRecordLayout layout;
    layout.by_channel = format->keys_by_channel && side == KV_KEYS;
    layout.minima = layout.codes = 0;
    layout.block = kv_format_block(format, group);
    layout.blocks_per_row = group->head_dim / layout.block;
    layout.token_bytes = group->head_dim * (size_t)format->bits / 8;
    size_t n_scales = layout.by_channel ? group->head_dim : group->n_tokens * layout.blocks_per_row;
    if (format->type != KV_SCALED) {
        const TensorTypeInfo *info = tensor_type_info(format->type);
        layout.token_bytes = group->head_dim / info->block_elements * info->block_bytes;
    } else if (format->kind == KV_CODE_NF4) {
        layout.codes = KV_NF4_SCALES + n_scales;
    } else {
        layout.minima = n_scales * sizeof(uint16_t);
        layout.codes = format->kind == KV_CODE_UNSIGNED ? layout.minima * 2 : layout.minima;
    }
    layout.size_bytes = layout.codes + group->n_tokens * layout.token_bytes;
    return layout;
}

#endif
