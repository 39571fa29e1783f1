/* The decoders of one instruction set, indexed by TensorType; tensor_decoder() in tensor.h chooses. */
#ifndef STOWKV_BLOCK_DECODE_H
#define STOWKV_BLOCK_DECODE_H

#include "base/simd/levels.h"
#include "base/tensor.h"

SIMD_DECLARE(TensorDecode *const, tensor_decoders, [TENSOR_TYPE_COUNT]);

#endif
