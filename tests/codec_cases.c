/* See codec_cases.h. */
#include "tests/codec_cases.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>

static const char *const DATA_NAMES[DATA_COUNT] = {
    "gaussian", "outlier channels", "uniform", "student t", "offset", "constant", "zero", "subnormal", "large",
};

const char *codec_data_name(CodecData data) {
    return DATA_NAMES[data];
}

/* Uniform in (0, 1): splitmix64. */
static double uniform(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
}

static double gaussian(uint64_t *state) {
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(6.283185307179586 * uniform(state));
}

static double draw(CodecData data, size_t channel, uint64_t *state) {
    double u = uniform(state) * 2 - 1;
    switch (data) {
    case DATA_GAUSSIAN:
        return gaussian(state);
    case DATA_OUTLIER_CHANNELS:
        return gaussian(state) * (channel % 16 == 5 ? 30 : 1);
    case DATA_UNIFORM:
        return u;
    case DATA_STUDENT_T:
        return u * sqrt(2 / (1 - u * u));
    case DATA_OFFSET:
        return -12 + 0.05 * gaussian(state);
    case DATA_CONSTANT:
        return 3.140625;
    case DATA_SUBNORMAL:
        return u * 0x1p-14;
    case DATA_LARGE:
        return u * 65504;
    case DATA_ZERO:
    case DATA_COUNT:
        break;
    }
    return 0;
}

void codec_data(CodecData data, unsigned seed, size_t n_tokens, size_t head_dim, float *values) {
    uint64_t state = (uint64_t)seed * 1000 + (uint64_t)data;
    for (size_t i = 0; i < n_tokens * head_dim; i++)
        values[i] = half_to_float(half_from_float((float)draw(data, i % head_dim, &state)));
}

CodecUnit codec_unit(KvCodecId id, KvSide side, const KvGroup *group) {
    CodecUnit channel = {group->n_tokens, 1}, token = {1, group->head_dim}, block = {1, group->block};
    if (group->block > group->head_dim)
        block = token;
    switch (id) {
    case KV_F16:
        return (CodecUnit){1, 1};
    case KV_INT8:
    case KV_BINARY:
        return side == KV_KEYS ? channel : token;
    case KV_INT8G:
    case KV_INT6:
    case KV_INT4:
    case KV_INT3:
    case KV_INT2:
        return side == KV_KEYS ? channel : block;
    case KV_FP8:
        return token;
    case KV_NF4:
        return (CodecUnit){1, 64};
    case KV_Q8_0:
    case KV_Q5_1:
    case KV_Q5_0:
    case KV_Q4_1:
    case KV_Q4_0:
        return (CodecUnit){1, 32};
    case KV_CODEC_COUNT:
        break;
    }
    abort();
}

void for_each_codec_shape(CodecCheck *check) {
    static const size_t HEAD_DIMS[] = {16, 32, 40, 64, 80, 96, 128, 256};
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        for (size_t d = 0; d < sizeof HEAD_DIMS / sizeof *HEAD_DIMS; d++)
            for (unsigned choice = 0; choice < 16; choice++) {
                KvGroup group = {.n_tokens = choice & 1 ? 64 : 32,
                                 .head_dim = HEAD_DIMS[d],
                                 .block = choice & 2 ? 64 : 32,
                                 .rotated = choice & 4};
                if (kv_codec_check(kv_codec(id), &group, NULL) == 0)
                    check(kv_codec(id), choice & 8 ? KV_KEYS : KV_VALUES, &group);
            }
}

uint8_t *codec_encoded(const KvCodec *codec, KvSide side, const KvGroup *group, const float *values) {
    float *scratch = malloc(group->n_tokens * group->head_dim * sizeof *scratch);
    uint8_t *record = malloc(kv_codec_bytes(codec, side, group));
    kv_codec_encode(codec, SIMD_SCALAR, side, group, values, scratch, record);
    free(scratch);
    return record;
}

float *codec_decoded(const KvCodec *codec, KvSide side, const KvGroup *group, const uint8_t *record, SimdLevel level) {
    float *decoded = malloc(group->n_tokens * group->head_dim * sizeof *decoded);
    kv_codec_decoder(codec, level)(side, group, record, 0, group->n_tokens, decoded);
    return decoded;
}
