/* The attention kernel of each instruction set; attention_kernel() chooses. */
#ifndef STOWKV_ATTEND_H
#define STOWKV_ATTEND_H

#include "attention/attention.h"
#include "model/base/simd_levels.h"

SIMD_DECLARE(Attend, attend, );

#endif
