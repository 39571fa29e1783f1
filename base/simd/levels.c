/* See levels.h. */
#include "base/simd/levels.h"

static const struct {
    const char *name, *features;
} LEVELS[SIMD_LEVEL_COUNT] = {
    [SIMD_SCALAR] = {"scalar", "baseline"},
    [SIMD_AVX2] = {"avx2", "avx2,fma,f16c"},
    [SIMD_AVX2_VNNI] = {"avx2", "avx2,fma,f16c,vnni"},
    [SIMD_AVX512] = {"avx512", "avx512f,bw,vl,dq"},
    [SIMD_AVX512_VNNI] = {"avx512", "avx512f,bw,vl,dq,vnni"},
    [SIMD_NEON] = {"neon", "asimd,asimdhp,asimddp"},
};

const char *simd_level_name(SimdLevel level) {
    return LEVELS[level].name;
}

const char *simd_level_features(SimdLevel level) {
    return LEVELS[level].features;
}
