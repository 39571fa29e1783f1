/* Encoded numbers to F32, for each type of tensor and each instruction set. */
#ifndef STOWKV_BLOCK_DECODE_H
#define STOWKV_BLOCK_DECODE_H

#include "base/simd/levels.h"
#include "base/tensor.h"

/* Decodes elements [first, first + n) to out (n). `first` and `n` are multiples of the type's block_elements, or of the
 * tensor's group. Every instruction set gives the same bits: GGML's formulas in F32, without fused operations. */
typedef void TensorDecode(const Tensor *tensor, size_t first, size_t n, float *out);

SIMD_DECLARE(TensorDecode *const, tensor_decoders, [TENSOR_TYPE_COUNT]);

static inline TensorDecode *tensor_decoder(TensorType type, SimdLevel level) {
    static TensorDecode *const *const DECODERS[SIMD_LEVEL_COUNT] = SIMD_TABLE(tensor_decoders);
    return DECODERS[level][type];
}

#endif
