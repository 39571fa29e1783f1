/* The size of the strips of activation_strips.h, for sources of stowkv_simd_library() only. */
#ifndef STOWKV_STRIP_TOKENS_H
#define STOWKV_STRIP_TOKENS_H

#include "base/simd/vectors.h"

/* Tokens of a strip: the sums of so many tokens by 2 vectors of rows (4 of 4 lanes) stay in registers. */
#if VEC_LANES == 16
#define STRIP_TOKENS 12
#else
#define STRIP_TOKENS 4
#endif

#endif
