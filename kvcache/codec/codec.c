/* The table of codecs, and what is common to them; see codec.h. How records are laid out is in format.h. */
#include "kvcache/codec/codec.h"

#include "kvcache/codec/decode.h"
#include "kvcache/codec/encode.h"

#include <stdio.h>

struct KvCodec {
    const char *name, *purpose;
    KvEncode *const *encoders; /* by SimdLevel */
};

static KvEncode *const TENSOR[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_tensor);
static KvEncode *const SCALED[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_scaled);
static KvEncode *const NF4[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_encode_nf4);

static const KvCodec CODECS[KV_CODEC_COUNT] = {
    [KV_F16] = {"f16", "exact", TENSOR},
    [KV_INT8] = {"int8", "nearly exact; the usual choice", SCALED},
    [KV_INT8G] = {"int8g", "nearly exact where values lie far from zero", SCALED},
    [KV_Q8_0] = {"q8_0", "nearly exact; GGML's format", TENSOR},
    [KV_FP8] = {"fp8", "E4M3, for values of very different size", SCALED},
    [KV_Q5_1] = {"q5_1", "values, and keys with care; GGML's format", TENSOR},
    [KV_Q5_0] = {"q5_0", "values, and keys with care; GGML's format", TENSOR},
    [KV_INT4] = {"int4", "the best 4 bits for keys, and good for values", SCALED},
    [KV_Q4_1] = {"q4_1", "values, rotated; GGML's format", TENSOR},
    [KV_Q4_0] = {"q4_0", "values, rotated; GGML's format", TENSOR},
    [KV_NF4] = {"nf4", "values, rotated; the fewest bits of the 4-bit codecs", NF4},
    [KV_INT2] = {"int2", "values of old tokens, at a price (KIVI)", SCALED},
    [KV_BINARY] = {"binary", "experiments: signs and a mean magnitude", SCALED},
};

static const char *const NAMES[KV_CODEC_COUNT + 1] = {
    "f16", "int8", "int8g", "q8_0", "fp8", "q5_1", "q5_0", "int4", "q4_1", "q4_0", "nf4", "int2", "binary", NULL,
};

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

/* What head_dim must be a multiple of. A block is never larger than head_dim, but has at least 8 elements. */
static size_t head_dim_multiple(const KvFormat *format, const KvGroup *group) {
    size_t codes_per_byte = format->bits < 8 ? 8 / (size_t)format->bits : 1;
    if (format->kind == KV_CODE_TENSOR)
        return tensor_type_info(format->type)->block_elements;
    if (format->kind == KV_CODE_NF4)
        return KV_NF4_BLOCK;
    if (format->block != KV_GROUP_BLOCK)
        return codes_per_byte;
    return group->head_dim < 8 ? 8 : group->head_dim < group->block ? codes_per_byte : group->block;
}

static bool suits(const KvFormat *format, const KvGroup *group) {
    return group->head_dim > 0 && group->head_dim % head_dim_multiple(format, group) == 0;
}

/* "f16, int8, fp8": the codecs that can encode this shape. */
static void list_suitable(const KvGroup *group, char *text, size_t size) {
    size_t length = 0;
    text[0] = '\0';
    for (KvCodecId id = 0; id < KV_CODEC_COUNT && length < size; id++)
        if (suits(&KV_FORMATS[id], group))
            length += (size_t)snprintf(text + length, size - length, "%s%s", length > 0 ? ", " : "", CODECS[id].name);
}

int kv_codec_check(const KvCodec *codec, const KvGroup *group, Error *error) {
    size_t head_dim = group->head_dim;
    if (group->n_tokens != 32 && group->n_tokens != 64)
        return error_set(error, ERROR_ARGUMENT, "groups of %zu tokens cannot be encoded; use 32 or 64",
                         group->n_tokens);
    if (group->block != 32 && group->block != 64)
        return error_set(error, ERROR_ARGUMENT, "blocks of %zu elements cannot be encoded; use 32 or 64", group->block);
    if (!suits(format_of(codec), group)) {
        char choices[128];
        list_suitable(group, choices, sizeof choices);
        return error_set(error, ERROR_UNSUPPORTED,
                         "codec %s needs a head_dim that is a multiple of %zu, the model has %zu; use one of %s",
                         codec->name, head_dim_multiple(format_of(codec), group), head_dim, choices);
    }
    if (group->rotated && (head_dim & (head_dim - 1)) != 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "rotation needs a head_dim that is a power of two, the model has %zu; turn rotation off",
                         head_dim);
    return 0;
}

size_t kv_codec_bytes(const KvCodec *codec, KvSide side, const KvGroup *group) {
    return kv_layout(format_of(codec), side, group).size_bytes;
}

double kv_codec_bits(const KvCodec *codec_k, const KvCodec *codec_v, const KvGroup *group) {
    size_t bytes = kv_codec_bytes(codec_k, KV_KEYS, group) + kv_codec_bytes(codec_v, KV_VALUES, group);
    return (double)bytes * 8 / (double)(2 * group->n_tokens * group->head_dim);
}

void kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group, const float *values,
                     float *scratch, uint8_t *record) {
    if (group->rotated) {
        memcpy(scratch, values, group->n_tokens * group->head_dim * sizeof *scratch);
        kv_rotate(scratch, group->n_tokens, group->head_dim);
        values = scratch;
    }
    codec->encoders[level](format_of(codec), side, group, values, record);
}

KvDecode *kv_codec_decoder(const KvCodec *codec, SimdLevel level) {
    static KvDecode *const *const DECODERS[SIMD_LEVEL_COUNT] = SIMD_TABLE(kv_decoders);
    return DECODERS[level][kv_codec_id(codec)];
}
