/* What is common to all codecs; see codec.h. The table is in table.h, how records are laid out in format.h. */
#include "kvcache/codec/codec.h"

#include "base/checked.h"
#include "base/name_list.h"
#include "kvcache/codec/decode.h"
#include "kvcache/codec/encode.h"
#include "kvcache/codec/fit.h"

struct KvCodec {
    const char *name, *purpose;
};

#define CODEC(id, name, kind, bits, keys, block, layout, purpose) [KV_##id] = {name, purpose},
static const KvCodec CODECS[KV_CODEC_COUNT] = {KV_CODECS(CODEC)};

#define NAME(id, name, ...) name,
static const char *const NAMES[KV_CODEC_COUNT + 1] = {KV_CODECS(NAME) NULL};

/* The widths and layouts that encoders and decoders have. */
#define HAS_WIDTH(kind, bits)                                                                                          \
    ((kind) == KV_CODE_HALF                               ? (bits) == 16                                               \
     : (kind) == KV_CODE_SIGNED || (kind) == KV_CODE_E4M3 ? (bits) == 8                                                \
     : (kind) == KV_CODE_NF4                              ? (bits) == 4                                                \
     : (kind) == KV_CODE_SIGN                             ? (bits) == 1                                                \
                                                          : (bits) >= 1 && (bits) <= 8)
#define HAS_LAYOUT(kind, bits, keys, block, layout)                                                                    \
    ((kind) == KV_CODE_NF4    ? (layout) == KV_SCALED && (block) == KV_NF4_BLOCK && !(keys)                            \
     : (kind) == KV_CODE_E4M3 ? (layout) == KV_SCALED && (block) == KV_WHOLE_ROW && !(keys)                            \
     : (layout) == KV_SCALED  ? (kind) != KV_CODE_HALF && (kind) != KV_CODE_OFFSET                                     \
     : (layout) == TYPE_F16   ? (kind) == KV_CODE_HALF && (block) == 1                                                 \
     : (layout) == TYPE_Q8_0  ? (kind) == KV_CODE_SIGNED && (block) == 32                                              \
     : (layout) == TYPE_Q4_0  ? (kind) == KV_CODE_OFFSET && (block) == 32 && (bits) == 4                               \
     : (layout) == TYPE_Q5_0  ? (kind) == KV_CODE_OFFSET && (block) == 32 && (bits) == 5                               \
     : (layout) == TYPE_Q4_1  ? (kind) == KV_CODE_UNSIGNED && (block) == 32 && (bits) == 4                             \
     : (layout) == TYPE_Q5_1  ? (kind) == KV_CODE_UNSIGNED && (block) == 32 && (bits) == 5                             \
                              : false)
#define CHECK_ROW(id, name, kind, bits, keys, block, layout, purpose)                                                  \
    _Static_assert(HAS_WIDTH(kind, bits), "codec " name ": codes of this kind do not have " #bits " bits");            \
    _Static_assert(((layout) == KV_SCALED || !(keys)) && HAS_LAYOUT(kind, bits, keys, block, layout),                  \
                   "codec " name ": no record of this layout has such codes");
KV_CODECS(CHECK_ROW)

const KvCodec *kv_codec(KvCodecId id) {
    return &CODECS[id];
}

const KvCodec *kv_codec_named(StringView name) {
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        if (sv_is(name, CODECS[id].name))
            return &CODECS[id];
    return NULL;
}

const char *const *kv_codec_names(void) {
    return NAMES;
}

KvCodecId kv_codec_id(const KvCodec *codec) {
    return (KvCodecId)(codec - CODECS);
}

const char *kv_codec_name(const KvCodec *codec) {
    return codec->name;
}

const char *kv_codec_purpose(const KvCodec *codec) {
    return codec->purpose;
}

static const KvFormat *format_of(const KvCodec *codec) {
    return &KV_FORMATS[kv_codec_id(codec)];
}

int kv_codec_nominal_bits(const KvCodec *codec) {
    return format_of(codec)->bits;
}

/* A chosen block is never larger than a row, but has at least 8 elements. */
static size_t row_multiple(const KvFormat *format, const KvGroup *group) {
    if (format->block == KV_WHOLE_ROW)
        return kv_codes_of_whole_bytes(format->bits);
    if (format->block != KV_GROUP_BLOCK)
        return format->block;
    return group->head_dim < 8              ? 8
           : group->head_dim < group->block ? kv_codes_of_whole_bytes(format->bits)
                                            : group->block;
}

static bool suits(const KvFormat *format, const KvGroup *group) {
    return group->head_dim > 0 && group->head_dim % row_multiple(format, group) == 0;
}

size_t kv_codec_row_multiple(const KvCodec *codec, const KvGroup *group) {
    return row_multiple(format_of(codec), group);
}

static NameList suitable_codecs(const KvGroup *group) {
    NameList names = {0};
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        if (suits(&KV_FORMATS[id], group))
            name_list_add(&names, CODECS[id].name);
    return names;
}

int kv_codec_check(const KvCodec *codec, const KvGroup *group, Error *error) {
    size_t head_dim = group->head_dim;
    if (!kv_is_group_size(group->n_tokens))
        return error_set(error, ERROR_ARGUMENT, "groups of %zu tokens cannot be encoded; use 32 or 64",
                         group->n_tokens);
    if (!kv_is_group_size(group->block))
        return error_set(error, ERROR_ARGUMENT, "blocks of %zu elements cannot be encoded; use 32 or 64", group->block);
    if (!suits(format_of(codec), group)) {
        NameList choices = suitable_codecs(group);
        return error_set(error, ERROR_UNSUPPORTED,
                         "codec %s needs a head_dim that is a multiple of %zu, the model has %zu; use one of %s",
                         codec->name, row_multiple(format_of(codec), group), head_dim, choices.text);
    }
    if (group->rotated && !is_power_of_two(head_dim))
        return error_set(error, ERROR_UNSUPPORTED,
                         "rotation needs a head_dim that is a power of two, the model has %zu; turn rotation off",
                         head_dim);
    return 0;
}

size_t kv_codec_bytes(const KvCodec *codec, KvSide side, const KvGroup *group) {
    return kv_record_layout(format_of(codec), side, group).size_bytes;
}

double kv_codec_bits(const KvCodec *codec_k, const KvCodec *codec_v, const KvGroup *group) {
    size_t bytes = kv_codec_bytes(codec_k, KV_KEYS, group) + kv_codec_bytes(codec_v, KV_VALUES, group);
    return (double)bytes * 8 / (double)(2 * group->n_tokens * group->head_dim);
}

void kv_codec_pad(const KvCodec *codec, const KvGroup *group, size_t head_dim, float *values) {
    for (size_t t = 0; t < group->n_tokens && head_dim < group->head_dim; t++, values += group->head_dim) {
        float padding = kv_padding(format_of(codec)->kind, group->rotated, values, head_dim);
        for (size_t i = head_dim; i < group->head_dim; i++)
            values[i] = padding;
    }
}

static KvEncode *encoder_of(const KvFormat *format, SimdLevel level) {
    static KvEncode *const TENSOR[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_tensor);
    static KvEncode *const SCALED[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_scaled);
    static KvEncode *const NF4[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_nf4);
    if (format->type != KV_SCALED)
        return TENSOR[level];
    return format->kind == KV_CODE_NF4 ? NF4[level] : SCALED[level];
}

void kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group, const float *values,
                     float *scratch, uint8_t *record) {
    if (group->rotated) {
        memcpy(scratch, values, group->n_tokens * group->head_dim * sizeof *scratch);
        kv_rotate(scratch, group->n_tokens, group->head_dim);
        values = scratch;
    }
    encoder_of(format_of(codec), level)(format_of(codec), side, group, values, record);
}

bool kv_codec_rounds_aware(const KvCodec *codec) {
    const KvFormat *format = format_of(codec);
    return format->keys_by_channel && (format->kind == KV_CODE_SIGNED || format->kind == KV_CODE_UNSIGNED);
}

void kv_codec_encode_aware(const KvCodec *codec, SimdLevel level, const KvGroup *group, const float *factor,
                           const float *values, float *scratch, uint8_t *record) {
    static KvEncodeAware *const AWARE[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_aware);
    AWARE[level](format_of(codec), group, factor, values, scratch, record);
}

bool kv_codec_is_fitted(const KvCodec *codec, KvSide side) {
    return kv_format_is_fitted(format_of(codec), side);
}

void kv_codec_encode_fitted(const KvCodec *codec, SimdLevel level, const KvGroup *group, const float *values,
                            uint8_t *record) {
    static KvEncode *const FITTED[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_fitted);
    FITTED[level](format_of(codec), KV_VALUES, group, values, record);
}

KvDecode *kv_codec_decoder(const KvCodec *codec, SimdLevel level) {
    static KvDecode *const *const DECODERS[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_decoders);
    return DECODERS[level][kv_codec_id(codec)];
}
