/* The size of the strips of activation_strips.h, for sources of stowkv_simd_library() only. */
#ifndef STOWKV_STRIP_TOKENS_H
#define STOWKV_STRIP_TOKENS_H

#include "base/simd/vectors.h"

/* Tokens of a strip: what is held in registers is sums of STRIP_TOKENS tokens by 2 (4) vectors of rows. */
#if VEC_LANES == 16
#define STRIP_TOKENS 12
#else
#define STRIP_TOKENS 4
#endif

#endif
