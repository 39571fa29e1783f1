/* Which instruction set and how many threads this machine offers. */
#ifndef STOWKV_CPU_H
#define STOWKV_CPU_H

#include "base/error.h"

#include <stdbool.h>

/* Levels in rising order; each includes those of its processor before it. Kernels exist once for each level
 * (base/simd/vectors.h). Levels of other processors are not compiled in and never run. */
typedef enum SimdLevel {
    SIMD_SCALAR,
    SIMD_AVX2,
    SIMD_AVX2_VNNI, /* on the command line avx2 too, as the next two are both avx512: the better of two that runs */
    SIMD_AVX512,
    SIMD_AVX512_VNNI,
    SIMD_NEON,
    SIMD_LEVEL_COUNT
} SimdLevel;

/* Its name on the command line, and what tells levels of one name apart: "avx512f,bw,vl,dq,vnni". */
const char *simd_level_name(SimdLevel level);
const char *simd_level_features(SimdLevel level);

/* Whether the level was compiled in, processor and operating system list it, and a probe of its instructions works. The
 * probe costs some microseconds: ask once, not in a loop over tokens. */
bool cpu_runs(SimdLevel level);

/* The best level that runs. */
SimdLevel cpu_best_simd_level(void);

/* The next level that runs, or SIMD_LEVEL_COUNT:
 *     for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) … */
SimdLevel cpu_next_level(SimdLevel level);

/* "auto" or a level's name; one that this machine cannot run is an error that names those it can. */
int cpu_parse_simd_level(const char *name, SimdLevel *out, Error *error);

/* Physical cores that this process may run on (its affinity mask), or fewer where a control group gives it less time
 * than that; at least 1. */
int cpu_physical_cores(void);

#endif
