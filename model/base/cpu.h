/* Which instruction set and how many threads this machine offers. */
#ifndef STOWKV_CPU_H
#define STOWKV_CPU_H

#include "model/base/error.h"

/* Levels in rising order; each includes the ones before it. Kernels exist once for each level (simd.h). */
typedef enum SimdLevel { SIMD_SCALAR, SIMD_AVX2, SIMD_AVX512, SIMD_LEVEL_COUNT } SimdLevel;

const char *simd_level_name(SimdLevel level);

/* The best level that was compiled in and that processor and operating system support. */
SimdLevel cpu_best_simd_level(void);

/* "auto" or a level's name; one that this machine cannot run is an error that names those it can. */
int cpu_parse_simd_level(const char *name, SimdLevel *out, Error *error);

/* Physical cores that this process may run on (its affinity mask), at least 1. */
int cpu_physical_cores(void);

#endif
