/* Encoding to KV_SCALED records with FP16 scales (all but nf4): the range of what shares a scale is measured, a
 * scale and a minimum are fitted to it, then codes are chosen against the scale and minimum as stored. So a number with
 * an integer code is off by half a stored scale at most, whatever the rounding of scale and minimum did. */
#include "kvcache/codec/encode.h"
#include "kvcache/codec/fit_values.h"

#include <string.h>

/* The ranges of up to KV_PIECE columns. */
typedef struct Ranges {
    float low[KV_PIECE], high[KV_PIECE];
    float sum[KV_PIECE];   /* of magnitudes */
    float taint[KV_PIECE]; /* 0; NaN where a number is not finite */
} Ranges;

static void measure_columns(const float *x, size_t n_rows, size_t stride, size_t width, Ranges *ranges) {
    for (size_t j = 0; j < width; j++) {
        ranges->low[j] = ranges->high[j] = x[j];
        ranges->sum[j] = ranges->taint[j] = 0.0f;
    }
    for (size_t i = 0; i < n_rows; i++, x += stride)
        for (size_t j = 0; j < width; j++) {
            ranges->low[j] = x[j] < ranges->low[j] ? x[j] : ranges->low[j];
            ranges->high[j] = x[j] > ranges->high[j] ? x[j] : ranges->high[j];
            ranges->sum[j] += x[j] < 0 ? -x[j] : x[j];
            ranges->taint[j] += x[j] - x[j];
        }
}

/* The range of n consecutive numbers, in column 0: eight columns if possible, which vectorize, then their union. */
static void measure_run(const float *x, size_t n, Ranges *ranges) {
    size_t width = n % 8 == 0 ? 8 : 1;
    measure_columns(x, n / width, width, width, ranges);
    for (size_t j = 1; j < width; j++) {
        ranges->low[0] = ranges->low[j] < ranges->low[0] ? ranges->low[j] : ranges->low[0];
        ranges->high[0] = ranges->high[j] > ranges->high[0] ? ranges->high[j] : ranges->high[0];
        ranges->sum[0] += ranges->sum[j];
        ranges->taint[0] += ranges->taint[j];
    }
}

/* For column j, over which n numbers share a scale. */
static KvFit fit_column(const KvFormat *format, const Ranges *ranges, size_t j, size_t n) {
    KvRange range = {ranges->low[j], ranges->high[j], ranges->sum[j], ranges->taint[j]};
    return kv_fit_range(format->kind, format->bits, &range, n);
}

static void store_fit(const KvFormat *format, const KvRecordLayout *layout, size_t index, KvFit fit, uint8_t *record) {
    half_store(record + index * sizeof fit.scale, fit.scale);
    if (format->kind == KV_CODE_UNSIGNED)
        half_store(record + layout->minima + index * sizeof fit.minimum, fit.minimum);
}

static void store_scales(const KvFormat *format, const KvRecordLayout *layout, const KvGroup *group,
                         const float *values, uint8_t *record) {
    Ranges ranges;
    size_t head_dim = group->head_dim;
    if (layout->by_channel) {
        for (size_t begin = 0; begin < head_dim; begin += KV_PIECE) {
            size_t width = head_dim - begin < KV_PIECE ? head_dim - begin : KV_PIECE;
            measure_columns(values + begin, group->n_tokens, head_dim, width, &ranges);
            for (size_t j = 0; j < width; j++)
                store_fit(format, layout, begin + j, fit_column(format, &ranges, j, group->n_tokens), record);
        }
    } else {
        for (size_t i = 0; i < group->n_tokens * layout->blocks_per_row; i++) {
            measure_run(values + i * layout->block, layout->block, &ranges);
            store_fit(format, layout, i, fit_column(format, &ranges, 0, layout->block), record);
        }
    }
}

/* A loop for each kind, which vectorizes. */
static void choose_codes(const KvFormat *format, const float *x, size_t width, const KvSteps *steps, uint8_t *codes) {
#define CHOOSE(kind)                                                                                                   \
    case kind:                                                                                                         \
        for (size_t j = 0; j < width; j++)                                                                             \
            codes[j] = kv_scaled_code(kind, format->bits, x[j], steps->scale[j], steps->minimum[j]);                   \
        break
    switch (format->kind) {
        CHOOSE(KV_CODE_SIGNED);
        CHOOSE(KV_CODE_UNSIGNED);
        CHOOSE(KV_CODE_SIGN);
        CHOOSE(KV_CODE_E4M3);
    case KV_CODE_HALF: /* tensor.c */
    case KV_CODE_OFFSET:
    case KV_CODE_NF4: /* nf4.c */
        break;
    }
#undef CHOOSE
}

/* Scale and minimum number `index` of the record, for elements [begin, end) of a piece. */
static void load_step(const KvFormat *format, const KvRecordLayout *layout, const uint8_t *record, size_t index,
                      size_t begin, size_t end, KvSteps *steps) {
    float scale = half_load(record + index * sizeof(uint16_t)), minimum = 0.0f;
    if (format->kind == KV_CODE_UNSIGNED)
        minimum = half_load(record + layout->minima + index * sizeof(uint16_t));
    for (size_t j = begin; j < end; j++) {
        steps->scale[j] = scale;
        steps->minimum[j] = minimum;
    }
}

static void encode_piece(const KvFormat *format, const KvRecordLayout *layout, const KvGroup *group,
                         const float *values, size_t begin, size_t width, uint8_t *record) {
    uint8_t *packed = record + layout->codes + begin * (size_t)format->bits / 8, codes[KV_PIECE];
    KvSteps steps;
    for (size_t j = 0; j < width && layout->by_channel; j++)
        load_step(format, layout, record, begin + j, j, j + 1, &steps);
    for (size_t t = 0; t < group->n_tokens; t++) {
        if (!layout->by_channel)
            load_step(format, layout, record, t * layout->blocks_per_row + begin / layout->block, 0, width, &steps);
        choose_codes(format, values + t * group->head_dim + begin, width, &steps, codes);
        pack_codes(codes, width, format->bits, packed + t * layout->token_bytes);
    }
}

/* ---- Numbers that share a scale and a minimum, in a run */

/* Their scale, minimum and codes, fitted if that is wanted and possible, else by their range. */
static void encode_run(const KvFormat *format, const KvRecordLayout *layout, bool fitted, const float *x, size_t n,
                       size_t index, uint8_t *record, KvSteps *steps, uint8_t *codes) {
    Ranges ranges;
    KvFit fit;
    measure_run(x, n, &ranges);
    bool fits = fitted && kv_fit_values(x, n, format->bits, ranges.low[0], ranges.high[0], &fit, codes);
    store_fit(format, layout, index, fits ? fit : fit_column(format, &ranges, 0, n), record);
    load_step(format, layout, record, index, 0, n, steps);
    if (!fits)
        choose_codes(format, x, n, steps, codes);
}

/* ---- Keys by channel, each channel corrected for the errors of those before it */

/* 32 of the channel's numbers as they are to be rounded: its own, and its shares of the errors so far. The sums of so
 * many stay in registers. */
static void correct_channel(const float *shares, size_t channel, size_t n_tokens, const float *errors, float *x) {
    float sum[32];
    memcpy(sum, x, sizeof sum);
    for (size_t j = 0; j < channel; j++, errors += n_tokens)
        for (size_t t = 0; t < 32; t++)
            sum[t] += shares[j] * errors[t];
    memcpy(x, sum, sizeof sum);
}

/* What the channel's true numbers lose; none is passed on where one of them is not finite. */
static void channel_errors(const KvFormat *format, const float *values, size_t stride, size_t n_tokens,
                           const KvSteps *steps, const uint8_t *codes, float *errors) {
    float taint = 0.0f;
    for (size_t t = 0; t < n_tokens; t++) {
        float code = format->kind == KV_CODE_SIGNED ? (float)(int8_t)codes[t] : (float)codes[t];
        errors[t] = values[t * stride] - (steps->scale[0] * code + steps->minimum[0]);
        taint += errors[t] - errors[t];
    }
    for (size_t t = 0; t < n_tokens && taint != 0.0f; t++)
        errors[t] = 0.0f;
}

void SIMD_NAME(kv_encode_aware)(const KvFormat *format, const KvGroup *group, const float *factor, const float *values,
                                float *errors, uint8_t *record) {
    KvRecordLayout layout = kv_record_layout(format, KV_KEYS, group);
    size_t n_tokens = group->n_tokens, head_dim = group->head_dim;
    uint8_t codes[KV_MAX_GROUP], *by_token = (uint8_t *)(errors + head_dim * n_tokens);
    bool fitted = kv_format_is_fitted(format, KV_KEYS);
    float x[KV_MAX_GROUP];
    for (size_t c = 0; c < head_dim; c++) {
        KvSteps steps;
        for (size_t t = 0; t < n_tokens; t++)
            x[t] = values[t * head_dim + c];
        for (size_t t = 0; t < n_tokens; t += 32)
            correct_channel(factor + c * head_dim, c, n_tokens, errors + t, x + t);
        encode_run(format, &layout, fitted, x, n_tokens, c, record, &steps, codes);
        channel_errors(format, values + c, head_dim, n_tokens, &steps, codes, errors + c * n_tokens);
        for (size_t t = 0; t < n_tokens; t++)
            by_token[t * head_dim + c] = codes[t];
    }
    for (size_t t = 0; t < n_tokens; t++)
        pack_codes(by_token + t * head_dim, head_dim, format->bits, record + layout.codes + t * layout.token_bytes);
}

/* ---- Values, a scale and a minimum fitted to each block */

/* Block `index` of the record, in the order of scales. */
static void encode_fitted(const KvFormat *format, const KvRecordLayout *layout, const float *x, size_t index,
                          uint8_t *record) {
    size_t n = layout->block, token = index / layout->blocks_per_row, within = index % layout->blocks_per_row;
    uint8_t codes[KV_PIECE];
    KvSteps steps;
    encode_run(format, layout, true, x, n, index, record, &steps, codes);
    pack_codes(codes, n, format->bits,
               record + layout->codes + token * layout->token_bytes + within * n * (size_t)format->bits / 8);
}

void SIMD_NAME(kv_encode_fitted)(const KvFormat *format, KvSide side, const KvGroup *group, const float *values,
                                 uint8_t *record) {
    KvRecordLayout layout = kv_record_layout(format, side, group);
    for (size_t i = 0; i < group->n_tokens * layout.blocks_per_row; i++)
        encode_fitted(format, &layout, values + i * layout.block, i, record);
}

void SIMD_NAME(kv_encode_scaled)(const KvFormat *format, KvSide side, const KvGroup *group, const float *values,
                                 uint8_t *record) {
    KvRecordLayout layout = kv_record_layout(format, side, group);
    size_t piece = layout.by_channel || layout.block > KV_PIECE ? KV_PIECE : layout.block;
    store_scales(format, &layout, group, values, record);
    for (size_t begin = 0; begin < group->head_dim; begin += piece) {
        size_t rest = group->head_dim - begin;
        encode_piece(format, &layout, group, values, begin, rest < piece ? rest : piece, record);
    }
}
