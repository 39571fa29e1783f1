/* The decoders of one instruction set, indexed by KvCodecId; kv_codec_decoder() in codec.h chooses. */
#ifndef STOWKV_CODEC_DECODE_H
#define STOWKV_CODEC_DECODE_H

#include "base/simd/levels.h"
#include "kvcache/codec/group.h"

SIMD_DECLARE(KvDecode *const, kv_decoders, [KV_CODEC_COUNT]);

#endif
