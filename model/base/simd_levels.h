/* Names of things that exist once for each instruction set. A source of stowkv_simd_library() (cmake/simd.cmake) is
 * compiled once a level and exports a table under SIMD_NAME(table); SIMD_DECLARE declares all of them in a header, and
 * SIMD_TABLE lists them in the order of SimdLevel. */
#ifndef STOWKV_SIMD_LEVELS_H
#define STOWKV_SIMD_LEVELS_H

#define SIMD_PASTE_(name, level) name##_##level
#define SIMD_PASTE(name, level)  SIMD_PASTE_(name, level)
#define SIMD_NAME(name)          SIMD_PASTE(name, SIMD_LEVEL)

#if defined(__x86_64__)
#define SIMD_DECLARE(type, name, suffix)                                                                               \
    extern type name##_scalar suffix;                                                                                  \
    extern type name##_avx2 suffix;                                                                                    \
    extern type name##_avx512 suffix
#define SIMD_TABLE(name)     {name##_scalar, name##_avx2, name##_avx512}
#define SIMD_ADDRESSES(name) {&name##_scalar, &name##_avx2, &name##_avx512}
#else
#define SIMD_DECLARE(type, name, suffix) extern type name##_scalar suffix
#define SIMD_TABLE(name)                 {name##_scalar}
#define SIMD_ADDRESSES(name)             {&name##_scalar}
#endif

#endif
