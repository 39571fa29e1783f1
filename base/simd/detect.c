/* See detect.h. */
#include "base/simd/detect.h"

#include "base/machine/cpu_try.h"
#include "base/simd/probe.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
/* Not every compiler's builtin knows these two. They use the AVX registers, whose state is checked with AVX2. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

static bool has_avx_vnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 1u << 4) != 0;
}

/* The builtin asks CPUID and, through XGETBV, whether the operating system saves the registers. */
static bool is_listed(SimdLevel level) {
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool LISTED[SIMD_LEVEL_COUNT] = {
        [SIMD_SCALAR] = true,
        [SIMD_AVX2] = avx2,
        [SIMD_AVX2_VNNI] = avx2 && has_avx_vnni(),
        [SIMD_AVX512] = avx512,
        [SIMD_AVX512_VNNI] = avx512 && __builtin_cpu_supports("avx512vnni"),
    };
    return LISTED[level];
}
#elif defined(__aarch64__)
static bool is_listed(SimdLevel level) {
    const unsigned long neon = HWCAP_ASIMD | HWCAP_ASIMDHP | HWCAP_ASIMDDP;
    return level == SIMD_SCALAR || (level == SIMD_NEON && (getauxval(AT_HWCAP) & neon) == neon);
}
#else
static bool is_listed(SimdLevel level) {
    return level == SIMD_SCALAR;
}
#endif

/* Some emulators, hypervisors and faulty processors list instructions that they refuse: only one that ran is proof. */
bool cpu_runs(SimdLevel level) {
    static CpuProbe *const PROBES[SIMD_LEVEL_COUNT] = SIMD_TABLE(simd_probe);
    return is_listed(level) && (level == SIMD_SCALAR || cpu_try(PROBES[level]));
}

SimdLevel cpu_best_simd_level(void) {
    SimdLevel best = SIMD_LEVEL_COUNT - 1;
    while (!cpu_runs(best))
        best--;
    return best;
}

SimdLevel cpu_next_level(SimdLevel level) {
    do
        level++;
    while (level < SIMD_LEVEL_COUNT && !cpu_runs(level));
    return level;
}

int cpu_parse_simd_level(const char *name, SimdLevel *out, Error *error) {
    const char *problem = "unknown";
    for (SimdLevel level = SIMD_LEVEL_COUNT; level-- > SIMD_SCALAR;) {
        if (strcmp(name, "auto") != 0 && strcmp(name, simd_level_name(level)) != 0)
            continue;
        if (cpu_runs(level)) {
            *out = level;
            return 0;
        }
        problem = is_listed(level) ? "the processor lists it but refuses it" : "not available on this machine";
    }
    char available[64] = "auto";
    const char *last = "";
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        if (strcmp(simd_level_name(level), last) != 0)
            strcat(strcat(available, ", "), simd_level_name(level));
        last = simd_level_name(level);
    }
    bool unknown = strcmp(problem, "unknown") == 0;
    return error_set(error, unknown ? ERROR_USAGE : ERROR_ARGUMENT, "--simd %s: %s; choose one of %s", name, problem,
                     available);
}
