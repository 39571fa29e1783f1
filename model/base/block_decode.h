/* The decoders of one instruction set, indexed by TensorType; tensor_decoder() in tensor.h chooses. */
#ifndef STOWKV_BLOCK_DECODE_H
#define STOWKV_BLOCK_DECODE_H

#include "model/base/simd_levels.h"
#include "model/base/tensor.h"

SIMD_DECLARE(TensorDecode *const, tensor_decoders, [TENSOR_TYPE_COUNT]);

#endif
