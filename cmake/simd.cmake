# stowkv_simd_library(NAME source…): the sources are compiled once for each instruction set, each time with
# SIMD_LEVEL and, in the names they export, the level's suffix (model/base/simd.h). The levels are chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(STOWKV_SIMD_LEVELS scalar avx2 avx512)
else()
  set(STOWKV_SIMD_LEVELS scalar)
endif()
set(STOWKV_SIMD_FLAGS_scalar "")
set(STOWKV_SIMD_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(STOWKV_SIMD_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512)

function(stowkv_simd_library name)
  foreach(level IN LISTS STOWKV_SIMD_LEVELS)
    add_library(${name}_${level} OBJECT ${ARGN})
    target_compile_definitions(${name}_${level} PRIVATE SIMD_LEVEL=${level})
    target_compile_options(${name}_${level} PRIVATE -O3 ${STOWKV_SIMD_FLAGS_${level}})
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:${name}_${level}>)
  endforeach()
endfunction()
