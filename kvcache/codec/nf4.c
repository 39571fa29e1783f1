/* Encoding to nf4: blocks of 64 numbers are scaled by their largest magnitude, which is itself quantized, from one
 * minimum and one step for the record. Minimum rounded down, step and scales rounded up: a stored scale is never below
 * the block's largest magnitude, so nothing is clipped, and at most a step above it. A number is therefore off by at
 * most 0.152 (half of the widest gap between levels) times (largest magnitude + step). */
#include "kvcache/codec/encode.h"
#include "kvcache/codec/half.h"

#include <math.h>

/* The largest magnitude, or NaN where a number is not finite. */
static float block_scale(const float x[KV_NF4_BLOCK]) {
    float largest = 0.0f, taint = 0.0f;
    for (size_t j = 0; j < KV_NF4_BLOCK; j++) {
        largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
        taint += x[j] - x[j];
    }
    return largest + taint;
}

typedef struct ScaleCode {
    float minimum, step;
} ScaleCode;

/* Chosen from the finite scales, and stored in front of the record. */
static ScaleCode fit_scales(const float *values, size_t n_blocks, uint8_t *record) {
    float low = INFINITY, high = 0.0f;
    for (size_t i = 0; i < n_blocks; i++) {
        float scale = block_scale(values + i * KV_NF4_BLOCK);
        low = scale < low ? scale : low;
        high = scale > high ? scale : high;
    }
    uint16_t minimum = half_floor(low < high ? low : high);
    uint16_t step = half_ceil((high - half_to_float(minimum)) / KV_NF4_MAX_SCALE);
    half_store(record, minimum);
    half_store(record + 2, step);
    return (ScaleCode){half_to_float(minimum), half_to_float(step)};
}

static uint8_t scale_code(const ScaleCode *scales, float scale) {
    if (isnan(scale))
        return KV_NF4_SCALE_NAN;
    if (scales->step == 0)
        return 0;
    int code = (int)clamp(ceilf((scale - scales->minimum) / scales->step), 0, KV_NF4_MAX_SCALE);
    if (code < KV_NF4_MAX_SCALE && scales->minimum + scales->step * (float)code < scale)
        code++;
    return (uint8_t)code;
}

/* The nearest level is as many levels up as there are midpoints below the number; of two equally near ones it is the
 * one nearer to zero, so that a block of zeros gets the level zero and does not decode to -0. */
static void choose_levels(const float x[KV_NF4_BLOCK], float scale, uint8_t codes[KV_NF4_BLOCK]) {
    memset(codes, 0, KV_NF4_BLOCK);
    for (size_t i = 0; i < 15; i++) {
        float midpoint = (KV_NF4_LEVELS[i] + KV_NF4_LEVELS[i + 1]) / 2 * scale;
        for (size_t j = 0; j < KV_NF4_BLOCK; j++)
            codes[j] += i < KV_NF4_ZERO ? x[j] >= midpoint : x[j] > midpoint;
    }
}

void SIMD_NAME(kv_encode_nf4)(const KvFormat *format, KvSide side, const KvGroup *group, const float *values,
                              uint8_t *record) {
    KvRecordLayout layout = kv_record_layout(format, side, group);
    size_t n_blocks = group->n_tokens * layout.blocks_per_row;
    ScaleCode scales = fit_scales(values, n_blocks, record);
    for (size_t i = 0; i < n_blocks; i++) {
        const float *x = values + i * KV_NF4_BLOCK;
        uint8_t codes[KV_NF4_BLOCK], code = scale_code(&scales, block_scale(x));
        record[KV_NF4_SCALES + i] = code;
        choose_levels(x, scales.minimum + scales.step * (float)code, codes);
        pack_codes(codes, KV_NF4_BLOCK, 4, record + layout.codes + i * KV_NF4_BLOCK / 2);
    }
}
