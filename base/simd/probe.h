/* Executes instructions of each feature that a level is compiled for; true where their results are right. */
#ifndef STOWKV_SIMD_PROBE_H
#define STOWKV_SIMD_PROBE_H

#include "base/machine/cpu_try.h"
#include "base/simd/levels.h"

SIMD_DECLARE(CpuProbe, simd_probe, );

#endif
