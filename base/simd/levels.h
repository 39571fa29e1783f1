/* Instruction sets, and names of things that exist once for each. A source of stowkv_simd_library() (cmake/simd.cmake)
 * is compiled once a level and exports a table under SIMD_NAME(table); SIMD_DECLARE declares all of them in a header,
 * and SIMD_TABLE lists them by SimdLevel, with NULL for the levels of other processors. SIMD_THIS_LEVEL is the level
 * that the including source is compiled for. Which of them this machine runs: detect.h. */
#ifndef STOWKV_SIMD_LEVELS_H
#define STOWKV_SIMD_LEVELS_H

/* Levels in rising order of preference. Kernels exist once for each level (vectors.h). Levels of other processors are
 * not compiled in and never run. On the command line a level with VNNI has the name of the one without: the better of
 * the two that runs is taken. */
typedef enum SimdLevel {
    SIMD_SCALAR,
    SIMD_AVX2,
    SIMD_AVX2_VNNI,
    SIMD_AVX512,
    SIMD_AVX512_VNNI,
    SIMD_NEON,
    SIMD_LEVEL_COUNT
} SimdLevel;

/* Its name on the command line, and what tells levels of one name apart: "avx512f,bw,vl,dq,vnni". */
const char *simd_level_name(SimdLevel level);
const char *simd_level_features(SimdLevel level);

/* What the names of its functions and kernels end in: "avx512vnni"; each level has its own. */
const char *simd_level_suffix(SimdLevel level);

#define SIMD_PASTE_(name, level) name##_##level
#define SIMD_PASTE(name, level)  SIMD_PASTE_(name, level)
#define SIMD_NAME(name)          SIMD_PASTE(name, SIMD_LEVEL)

#define SIMD_ID_scalar     SIMD_SCALAR
#define SIMD_ID_avx2       SIMD_AVX2
#define SIMD_ID_avx2vnni   SIMD_AVX2_VNNI
#define SIMD_ID_avx512     SIMD_AVX512
#define SIMD_ID_avx512vnni SIMD_AVX512_VNNI
#define SIMD_ID_neon       SIMD_NEON
#define SIMD_THIS_LEVEL    SIMD_NAME(SIMD_ID)

#if defined(__x86_64__)
#define SIMD_DECLARE(type, name, suffix)                                                                               \
    extern type name##_scalar suffix;                                                                                  \
    extern type name##_avx2 suffix;                                                                                    \
    extern type name##_avx2vnni suffix;                                                                                \
    extern type name##_avx512 suffix;                                                                                  \
    extern type name##_avx512vnni suffix
#define SIMD_LIST(prefix, name)                                                                                        \
    {                                                                                                                  \
        [SIMD_SCALAR] = prefix name##_scalar, [SIMD_AVX2] = prefix name##_avx2,                                        \
        [SIMD_AVX2_VNNI] = prefix name##_avx2vnni, [SIMD_AVX512] = prefix name##_avx512,                               \
        [SIMD_AVX512_VNNI] = prefix name##_avx512vnni                                                                  \
    }
#elif defined(__aarch64__)
#define SIMD_DECLARE(type, name, suffix)                                                                               \
    extern type name##_scalar suffix;                                                                                  \
    extern type name##_neon suffix
#define SIMD_LIST(prefix, name)                                                                                        \
    { [SIMD_SCALAR] = prefix name##_scalar, [SIMD_NEON] = prefix name##_neon }
#else
#define SIMD_DECLARE(type, name, suffix) extern type name##_scalar suffix
#define SIMD_LIST(prefix, name)                                                                                        \
    { [SIMD_SCALAR] = prefix name##_scalar }
#endif
#define SIMD_TABLE(name)     SIMD_LIST(, name)
#define SIMD_ADDRESSES(name) SIMD_LIST(&, name)

#endif
