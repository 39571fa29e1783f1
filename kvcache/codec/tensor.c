/* Encoding to rows of tensor types: f16, and GGML's q8_0, q4_0, q4_1, q5_0, q5_1 with the formulas and the order of
 * roundings of its reference (ggml-quants.c), so that every bit agrees where its scales are finite. Where they are not,
 * scales and minima saturate here; a block with a number that is not finite gets the scale NaN. */
#include "base/finite.h"
#include "kvcache/codec/encode.h"
#include "kvcache/codec/half.h"

#include <math.h>

#define BLOCK 32 /* numbers of each of GGML's formats here */

/* Codes of q4_0 and q5_0: x = d * (code - 2^(bits - 1)), where d makes the number of the largest magnitude code 0. */
static float symmetric_codes(const float x[BLOCK], int bits, uint8_t codes[BLOCK]) {
    float largest = x[0], middle = (float)(1 << (bits - 1));
    for (int j = 1; j < BLOCK; j++)
        if (fabsf(x[j]) > fabsf(largest))
            largest = x[j];
    float d = clamp(largest / -middle, -HALF_MAX, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    for (int j = 0; j < BLOCK; j++)
        codes[j] = (uint8_t)clamp(x[j] * inverse + (middle + 0.5f), 0.0f, 2 * middle - 1);
    return d;
}

/* Codes of q4_1 and q5_1: x = minimum + d * code. */
static float asymmetric_codes(const float x[BLOCK], int bits, uint8_t codes[BLOCK], float *minimum) {
    float low = x[0], high = x[0], levels = (float)((1 << bits) - 1);
    for (int j = 1; j < BLOCK; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    low = clamp(low, -HALF_MAX, HALF_MAX);
    float d = clamp((high - low) / levels, 0.0f, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    for (int j = 0; j < BLOCK; j++)
        codes[j] = (uint8_t)clamp((x[j] - low) * inverse + 0.5f, 0.0f, levels);
    *minimum = low;
    return d;
}

static void encode_small(const float x[BLOCK], int bits, bool has_minimum, uint8_t *block) {
    uint8_t codes[BLOCK];
    float minimum = 0.0f;
    float d = has_minimum ? asymmetric_codes(x, bits, codes, &minimum) : symmetric_codes(x, bits, codes);
    half_store(block, half_from_float(d));
    if (has_minimum)
        half_store(block + 2, half_from_float(minimum));
    pack_block(codes, bits, block + (has_minimum ? 4 : 2));
}

/* Codes are rounded to nearest, ties away from zero. */
static void encode_q8_0(const float x[BLOCK], uint8_t *block) {
    float largest = 0.0f;
    for (int j = 0; j < BLOCK; j++)
        largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
    float d = clamp(largest / 127.0f, 0.0f, HALF_MAX), inverse = d == 0 ? 0.0f : 1.0f / d;
    half_store(block, half_from_float(d));
    for (int j = 0; j < BLOCK; j++) {
        float magnitude = clamp(fabsf(x[j] * inverse), 0.0f, 127.0f);
        int code = (int)magnitude;
        code += magnitude - (float)code >= 0.5f;
        block[2 + j] = (uint8_t)(x[j] < 0 ? -code : code);
    }
}

static void encode_block(const KvFormat *format, const float x[BLOCK], uint8_t *block) {
    bool has_minimum = format->kind == KV_CODE_UNSIGNED;
    if (!all_finite(x, BLOCK)) {
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
            encode_block(format, values + i * BLOCK, block);
    }
}
