/* Encoding to nf4: blocks of 64 numbers are scaled by their largest magnitude, which is itself quantized, from one
 * minimum and one step for the record. Minimum rounded down, step and scales rounded up: a stored scale is never below
 * the block's largest magnitude, so nothing is clipped, and at most a step above it. A number is therefore off by at
 * most 0.152 (half of the widest gap between levels) times (largest magnitude + step). */
#include "kvcache/codec/encode.h"

#include <math.h>

/* Chosen from the finite scales, and stored in front of the record. */
static KvNf4Scales fit_scales(const float *values, size_t n_blocks, uint8_t *record) {
    float low = INFINITY, high = 0.0f;
    for (size_t i = 0; i < n_blocks; i++) {
        float scale = kv_nf4_block_scale(values + i * KV_NF4_BLOCK);
        low = scale < low ? scale : low;
        high = scale > high ? scale : high;
    }
    uint16_t minimum = kv_nf4_minimum(low, high), step = kv_nf4_step(minimum, high);
    half_store(record, minimum);
    half_store(record + 2, step);
    return (KvNf4Scales){half_to_float(minimum), half_to_float(step)};
}

static void choose_levels(const float x[KV_NF4_BLOCK], float scale, uint8_t codes[KV_NF4_BLOCK]) {
    memset(codes, 0, KV_NF4_BLOCK);
    for (size_t i = 0; i < 15; i++) {
        float midpoint = kv_nf4_midpoint(KV_NF4_LEVELS[i], KV_NF4_LEVELS[i + 1], scale);
        for (size_t j = 0; j < KV_NF4_BLOCK; j++)
            codes[j] += kv_nf4_is_above(x[j], i, midpoint);
    }
}

void SIMD_NAME(kv_encode_nf4)(const KvFormat *format, KvSide side, const KvGroup *group, const float *values,
                              uint8_t *record) {
    KvRecordLayout layout = kv_record_layout(format, side, group);
    size_t n_blocks = group->n_tokens * layout.blocks_per_row;
    KvNf4Scales scales = fit_scales(values, n_blocks, record);
    for (size_t i = 0; i < n_blocks; i++) {
        const float *x = values + i * KV_NF4_BLOCK;
        uint8_t codes[KV_NF4_BLOCK], code = kv_nf4_scale_code(&scales, kv_nf4_block_scale(x));
        record[KV_NF4_SCALES + i] = code;
        choose_levels(x, scales.minimum + scales.step * (float)code, codes);
        pack_codes(codes, KV_NF4_BLOCK, 4, record + layout.codes + i * KV_NF4_BLOCK / 2);
    }
}
