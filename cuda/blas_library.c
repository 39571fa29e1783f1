/* See blas_library.h. */
#include "cuda/blas_library.h"

#include <dlfcn.h>
#include <string.h>

/* That of the toolkit's major version comes first: any other that is there knows older GPUs, and may not know newer
 * ones. The last is for toolkits that the loader has not been told of. */
static void *open_library(void) {
    static const char *const NAMES[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so",
                                        "/usr/local/cuda/lib64/libcublas.so"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && library == NULL; i++)
        library = dlopen(NAMES[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

/* Sets a pointer to a function: ISO C has no conversion of what dlsym() returns. */
static bool find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

bool cublas_load(CublasFunctions *functions) {
    void *library = open_library();
    return library != NULL && find(library, "cublasCreate_v2", &functions->create) &&
           find(library, "cublasDestroy_v2", &functions->destroy) &&
           find(library, "cublasSetStream_v2", &functions->set_stream) &&
           find(library, "cublasSetWorkspace_v2", &functions->set_workspace) &&
           find(library, "cublasGemmEx", &functions->multiply);
}
