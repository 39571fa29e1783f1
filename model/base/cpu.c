/* Detection of instruction sets and cores; see cpu.h. */
#define _GNU_SOURCE
#include "model/base/cpu.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const LEVEL_NAMES[SIMD_LEVEL_COUNT] = {"scalar", "avx2", "avx512"};

const char *simd_level_name(SimdLevel level) {
    return LEVEL_NAMES[level];
}

#if defined(__x86_64__)
/* Not every compiler's builtin knows this one. It uses the AVX registers, whose state is checked with AVX2. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

/* The builtin asks CPUID and, through XGETBV, whether the operating system saves the registers. */
static bool level_runs(SimdLevel level) {
    if (level == SIMD_SCALAR)
        return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (level == SIMD_AVX2)
        return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

SimdLevel cpu_best_simd_level(void) {
    SimdLevel best = SIMD_SCALAR;
    for (SimdLevel level = SIMD_SCALAR; level < SIMD_LEVEL_COUNT; level++)
        if (level_runs(level))
            best = level;
    return best;
}

int cpu_parse_simd_level(const char *name, SimdLevel *out, Error *error) {
    if (strcmp(name, "auto") == 0) {
        *out = cpu_best_simd_level();
        return 0;
    }
    char available[64] = "auto";
    bool known = false;
    for (SimdLevel level = SIMD_SCALAR; level < SIMD_LEVEL_COUNT; level++) {
        known = known || strcmp(name, LEVEL_NAMES[level]) == 0;
        if (!level_runs(level))
            continue;
        if (strcmp(name, LEVEL_NAMES[level]) == 0) {
            *out = level;
            return 0;
        }
        strcat(strcat(available, ", "), LEVEL_NAMES[level]);
    }
    return error_set(error, known ? ERROR_ARGUMENT : ERROR_USAGE, "--simd %s: %s; choose one of %s", name,
                     known ? "not available on this machine" : "unknown", available);
}

/* Hyper-threads share a core: a CPU counts when it is the first of its siblings that we may run on. */
static bool is_first_sibling(int cpu, const cpu_set_t *allowed) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return true;
    bool first = true;
    int from;
    while (first && fscanf(file, "%d", &from) == 1) {
        int to = from;
        int separator = fgetc(file);
        if (separator == '-' && fscanf(file, "%d", &to) == 1)
            separator = fgetc(file);
        for (int sibling = from; sibling <= to && sibling < cpu; sibling++)
            first = first && !CPU_ISSET(sibling, allowed);
        if (separator != ',')
            break;
    }
    fclose(file);
    return first;
}

int cpu_physical_cores(void) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    int cores = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && is_first_sibling(cpu, &allowed))
            cores++;
    return cores > 0 ? cores : 1;
}
