# What every target of this project is compiled with.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# -std=c17 keeps a*b+c two roundings: block decoding is bit-identical on every instruction set, and the kernels say
# where they fuse.
set(host $<COMPILE_LANGUAGE:C,CXX>)
add_compile_options("$<${host}:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wformat=2;-Wvla;-ffp-contract=off>")
add_compile_options($<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>)
add_compile_definitions(_POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
include_directories(${PROJECT_SOURCE_DIR})

# GCC 12 for Arm fails (vect_transform_reduction) on loops that take a maximum of floats in double: here it vectorizes as
# at -O2, whatever the level.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND CMAKE_C_COMPILER_ID STREQUAL GNU AND
   CMAKE_C_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-fvect-cost-model=very-cheap)
endif()

if(STOWKV_WERROR)
  add_compile_options($<${host}:-Werror> "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings>")
endif()

if(STOWKV_SANITIZE)
  add_compile_options(
    "$<${host}:-fsanitize=address,undefined;-fno-sanitize-recover=all;-fno-omit-frame-pointer;-O1>")
  add_link_options(-fsanitize=address,undefined)
endif()
