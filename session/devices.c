/* See devices.h. */
#include "session/devices.h"

#include "base/options.h"
#include "cpu/backend.h"

#ifdef STOWKV_HAS_CUDA
#include "cuda/backend.h"
#define CUDA_FUNCTIONS cuda_backend_open, cuda_backend_records
#else
#define CUDA_FUNCTIONS NULL, NULL
#endif

static const Device DEVICES[] = {{"cpu", cpu_backend_open, cpu_backend_records}, {"cuda", CUDA_FUNCTIONS}};
static const char *const NAMES[] = {"auto", "cpu", "cuda", NULL};

const Device *device_named(const char *name, Error *error) {
    if (strcmp(name, "auto") == 0)
        return &DEVICES[0];
    for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++)
        if (strcmp(name, DEVICES[i].name) == 0) {
            if (DEVICES[i].open != NULL)
                return &DEVICES[i];
            error_set(error, ERROR_UNSUPPORTED,
                      "--device %s: this build has no backend for it; build where there is a CUDA toolkit, or use "
                      "--device cpu",
                      name);
            return NULL;
        }
    error_set(error, ERROR_USAGE, "--device %s: unknown; did you mean %s? Devices: auto, cpu, cuda", name,
              nearest_name(name, NAMES));
    return NULL;
}
