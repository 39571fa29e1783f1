# The CUDA backend is built where there is a toolkit; STOWKV_CUDA=ON insists on it. Programs need neither toolkit nor
# driver to start: the runtime is linked statically, and looks for the driver when it is called.
set(STOWKV_CUDA AUTO CACHE STRING "The CUDA backend: ON, OFF, or AUTO, where there is a toolkit")

# Sums and products round apart unless a kernel says fmaf(), so that encoded records have the bits of the host's encoders.
set(STOWKV_CUDA_OPTIONS --fmad=false)

set(STOWKV_HAS_CUDA FALSE)
if(STOWKV_CUDA AND NOT (STOWKV_CUDA STREQUAL AUTO AND (CMAKE_CROSSCOMPILING OR STOWKV_SANITIZE)))
  if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(STOWKV_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
    mark_as_advanced(STOWKV_NVCC)
    if(STOWKV_NVCC)
      set(CMAKE_CUDA_COMPILER ${STOWKV_NVCC})
    endif()
  endif()
  # The architecture of the GPU that is here; else A100's, which later ones up to sm_89 run, and H100's, from whose PTX
  # a driver makes what later ones need.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    if(EXISTS /proc/driver/nvidia/gpus)
      set(CMAKE_CUDA_ARCHITECTURES native)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(STOWKV_HAS_CUDA TRUE)
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    message(STATUS "CUDA backend: for architectures ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(STOWKV_CUDA STREQUAL ON)
    message(FATAL_ERROR "STOWKV_CUDA=ON, and there is no CUDA toolkit: install one, or name its compiler with "
                        "-DCMAKE_CUDA_COMPILER=/path/to/nvcc")
  else()
    message(STATUS "CUDA backend: left out, there is no CUDA toolkit")
  endif()
endif()
