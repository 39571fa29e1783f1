# Cross-compiles for 64-bit Arm with Debian's gcc-aarch64-linux-gnu and g++-aarch64-linux-gnu, and runs what it built
# under qemu-user. The libraries of CMakeLists.txt come from STOWKV_ARM64_ROOT, which cmake/fetch_arm64_libraries.sh fills.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(STOWKV_ARM64_ROOT ${CMAKE_CURRENT_LIST_DIR}/../build-aarch64/root CACHE PATH "Folder with usr/lib/aarch64-linux-gnu")
get_filename_component(root "${STOWKV_ARM64_ROOT}" ABSOLUTE)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES STOWKV_ARM64_ROOT)

set(CMAKE_FIND_ROOT_PATH ${root} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${root}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${root})

set(libraries ${root}/usr/lib/aarch64-linux-gnu)
add_compile_options(-isystem ${root}/usr/include)
# An old-style rpath, which counts for the libraries of libraries too: minizip's zlib is found by it.
set(paths ${libraries}:${root}/lib/aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-L${libraries} -Wl,--disable-new-dtags,-rpath,${paths}")

set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
