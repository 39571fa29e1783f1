/* See levels.h. */
#include "base/simd/levels.h"

static const struct {
    const char *name, *features, *suffix;
} LEVELS[SIMD_LEVEL_COUNT] = {
    [SIMD_SCALAR] = {"scalar", "baseline", "scalar"},
    [SIMD_AVX2] = {"avx2", "avx2,fma,f16c", "avx2"},
    [SIMD_AVX2_VNNI] = {"avx2", "avx2,fma,f16c,vnni", "avx2vnni"},
    [SIMD_AVX512] = {"avx512", "avx512f,bw,vl,dq", "avx512"},
    [SIMD_AVX512_VNNI] = {"avx512", "avx512f,bw,vl,dq,vnni", "avx512vnni"},
    [SIMD_NEON] = {"neon", "asimd,asimdhp,asimddp", "neon"},
};

const char *simd_level_name(SimdLevel level) {
    return LEVELS[level].name;
}

const char *simd_level_features(SimdLevel level) {
    return LEVELS[level].features;
}

const char *simd_level_suffix(SimdLevel level) {
    return LEVELS[level].suffix;
}
