/* Encoding to rows of tensor types: f16, and GGML's q8_0, q4_0, q4_1, q5_0, q5_1 with the formulas and the order of
 * roundings of its reference (ggml-quants.c), so that every bit agrees where its scales are finite. Where they are not,
 * scales and minima saturate here; a block with a number that is not finite gets the scale NaN. */
#include "base/finite.h"
#include "kvcache/codec/encode.h"

#include <math.h>

static void encode_small(const float x[KV_GGML_BLOCK], int bits, bool has_minimum, uint8_t *block) {
    uint8_t codes[KV_GGML_BLOCK];
    float minimum = 0.0f;
    float d = has_minimum ? kv_asymmetric_codes(x, bits, codes, &minimum) : kv_symmetric_codes(x, bits, codes);
    half_store(block, half_from_float(d));
    if (has_minimum)
        half_store(block + 2, half_from_float(minimum));
    pack_block(codes, bits, block + (has_minimum ? 4 : 2));
}

static void encode_q8_0(const float x[KV_GGML_BLOCK], uint8_t *block) {
    half_store(block, half_from_float(kv_q8_0_codes(x, block + 2)));
}

static void encode_block(const KvFormat *format, const float x[KV_GGML_BLOCK], uint8_t *block) {
    bool has_minimum = format->kind == KV_CODE_UNSIGNED;
    if (!all_finite(x, KV_GGML_BLOCK)) {
        memset(block, 0, tensor_type_info(format->type)->block_bytes);
        half_store(block, HALF_NAN);
        if (has_minimum)
            half_store(block + 2, HALF_NAN);
    } else if (format->kind == KV_CODE_SIGNED) {
        encode_q8_0(x, block);
    } else {
        encode_small(x, format->bits, has_minimum, block);
    }
}

void SIMD_NAME(kv_encode_tensor)(const KvFormat *format, KvSide side, const KvGroup *group, const float *values,
                                 uint8_t *record) {
    (void)side;
    const TensorTypeInfo *info = tensor_type_info(format->type);
    size_t n_blocks = group->n_tokens * group->head_dim / info->block_elements;
    for (size_t i = 0; i < n_blocks; i++) {
        uint8_t *block = record + i * info->block_bytes;
        if (format->kind == KV_CODE_HALF)
            half_store(block, isfinite(values[i]) ? half_saturated(values[i]) : HALF_NAN);
        else
            encode_block(format, values + i * KV_GGML_BLOCK, block);
    }
}
