# Preset portable: programs that run on other distributions, from glibc 2.35 on. The C library alone is linked
# dynamically; archives that Debian does not have come from cmake/build_static_libraries.sh.
option(STOWKV_PORTABLE "Link all libraries but the C library statically" OFF)
set(STOWKV_STATIC_ROOT "${PROJECT_BINARY_DIR}/static" CACHE PATH "Folder with lib/libcjson.a and lib/libsentencepiece.a")

if(STOWKV_PORTABLE)
  add_link_options(-static-libgcc -static-libstdc++ -Wl,--gc-sections -s)
endif()

# stowkv_link_archive(TARGET NAME…): what pkg-config found is libNAME.a, each after those that need it, in preset portable.
function(stowkv_link_archive target)
  if(NOT STOWKV_PORTABLE)
    return()
  endif()
  set(archives)
  foreach(name ${ARGN})
    find_library(STOWKV_ARCHIVE_${name} NAMES lib${name}.a HINTS ${STOWKV_STATIC_ROOT}/lib)
    mark_as_advanced(STOWKV_ARCHIVE_${name})
    if(NOT STOWKV_ARCHIVE_${name})
      message(FATAL_ERROR "STOWKV_PORTABLE: there is no lib${name}.a; make it with cmake/build_static_libraries.sh "
                          "${STOWKV_STATIC_ROOT}")
    endif()
    list(APPEND archives ${STOWKV_ARCHIVE_${name}})
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${archives}")
endfunction()
