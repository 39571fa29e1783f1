/* What the tests of the cache's codecs share: data, shapes, and which elements are encoded together. */
#ifndef STOWKV_CODEC_CASES_H
#define STOWKV_CODEC_CASES_H

#include "kvcache/codec/codec.h"

typedef enum CodecData {
    DATA_GAUSSIAN,
    DATA_OUTLIER_CHANNELS, /* Gaussian; one channel in sixteen is 30 times as large */
    DATA_UNIFORM,
    DATA_STUDENT_T, /* with 2 degrees of freedom: infinite variance */
    DATA_OFFSET,    /* far from zero, close together */
    DATA_CONSTANT,
    DATA_ZERO,
    DATA_SUBNORMAL, /* as halves */
    DATA_LARGE,     /* up to the largest half */
    DATA_COUNT
} CodecData;

/* Fills values (n_tokens, head_dim) with what FP16 holds exactly; the same for the same seed. */
void codec_data(CodecData data, unsigned seed, size_t n_tokens, size_t head_dim, float *values);
const char *codec_data_name(CodecData data);

/* A group is cut into units of this size: elements that share a scale. */
typedef struct CodecUnit {
    size_t n_tokens, n_channels;
} CodecUnit;

CodecUnit codec_unit(KvCodecId id, KvSide side, const KvGroup *group);

/* Calls `check` for every codec, side and legal shape. */
typedef void CodecCheck(const KvCodec *codec, KvSide side, const KvGroup *group);
void for_each_codec_shape(CodecCheck *check);

/* The group's record, malloc'd, and what `level` decodes it to. */
uint8_t *codec_encoded(const KvCodec *codec, KvSide side, const KvGroup *group, const float *values);
float *codec_decoded(const KvCodec *codec, KvSide side, const KvGroup *group, const uint8_t *record, SimdLevel level);

#endif
