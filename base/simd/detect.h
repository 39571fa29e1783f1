/* Which levels of levels.h this machine runs, and the choice among them. */
#ifndef STOWKV_SIMD_DETECT_H
#define STOWKV_SIMD_DETECT_H

#include "base/error.h"
#include "base/simd/levels.h"

#include <stdbool.h>

/* Whether the level was compiled in, processor and operating system list it, and a probe of its instructions works. The
 * probe costs some microseconds: ask once, not in a loop over tokens. */
bool cpu_runs(SimdLevel level);

/* The best level that runs. */
SimdLevel cpu_best_simd_level(void);

/* The next level that runs, or SIMD_LEVEL_COUNT:
 *     for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) … */
SimdLevel cpu_next_level(SimdLevel level);

/* `name`: "auto" or a level's. ERROR_USAGE where it is unknown, ERROR_ARGUMENT where this machine cannot run it; the
 * message names the levels that it can run. */
int cpu_parse_simd_level(const char *name, SimdLevel *out, Error *error);

#endif
