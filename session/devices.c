/* See devices.h. */
#include "session/devices.h"

#include "base/options.h"
#include "cpu/backend.h"

#ifdef STOWKV_HAS_CUDA
#include "cuda/backend.h"
#define CUDA_FUNCTIONS cuda_backend_probe, cuda_backend_open, cuda_backend_records
#else
#define CUDA_FUNCTIONS NULL, NULL, NULL
#endif

typedef struct Device {
    const char *name;
    int (*probe)(bool *is_there, Error *error); /* as cuda_backend_probe(); NULL: it is always there */
    int (*open)(Backend **out, SimdLevel level, int n_threads, Error *error); /* NULL: the build has no such backend */
    const KvRecordForm *(*records)(void);
} Device;

/* In the order in which "auto" tries them; the CPU works everywhere. */
static const Device DEVICES[] = {{"cuda", CUDA_FUNCTIONS}, {"cpu", NULL, cpu_backend_open, cpu_backend_records}};
static const char *const NAMES[] = {"auto", "cpu", "cuda", NULL};

enum { N_DEVICES = sizeof DEVICES / sizeof *DEVICES };

static bool is_auto(const char *name) {
    return strcmp(name, "auto") == 0;
}

static const Device *device_named(const char *name, Error *error) {
    for (size_t i = 0; i < N_DEVICES; i++)
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

/* 0 where the device may be opened. */
static int probe(const Device *device, bool *is_there, Error *error) {
    *is_there = device->open != NULL && device->probe == NULL;
    if (device->open == NULL)
        return error_set(error, ERROR_UNSUPPORTED, "this build has no backend for --device %s", device->name);
    return device->probe == NULL ? 0 : device->probe(is_there, error);
}

/* ERROR_UNSUPPORTED, with nothing open, where it lacks what the model needs. */
static int open_for(const Device *device, const ModelConfig *config, Backend **out, SimdLevel level, int n_threads,
                    Error *error) {
    if (device->open(out, level, n_threads, error) < 0)
        return error->code;
    if (config == NULL || backend_check(*out, config, error) == 0)
        return 0;
    (*out)->ops->close(*out);
    return error->code;
}

static int open_first(const ModelConfig *config, Backend **out, SimdLevel level, int n_threads, Error *error) {
    Error passed_over = {0}, why = {0};
    int status = ERROR_UNSUPPORTED;
    for (size_t i = 0; i < N_DEVICES && status == ERROR_UNSUPPORTED; i++) {
        bool is_there;
        status = probe(&DEVICES[i], &is_there, &why);
        if (status == 0)
            status = open_for(&DEVICES[i], config, out, level, n_threads, &why);
        if (status == ERROR_UNSUPPORTED && is_there)
            passed_over = why;
    }
    if (status < 0)
        return error_set(error, why.code, "%s", why.message);
    (*out)->passed_over = passed_over;
    return 0;
}

int device_open(const char *name, const ModelConfig *config, Backend **out, SimdLevel level, int n_threads,
                Error *error) {
    if (is_auto(name))
        return open_first(config, out, level, n_threads, error);
    const Device *device = device_named(name, error);
    return device == NULL ? error->code : open_for(device, config, out, level, n_threads, error);
}

const KvRecordForm *device_records(const char *name, Error *error) {
    for (size_t i = 0; is_auto(name) && i < N_DEVICES; i++) {
        bool is_there;
        Error why;
        if (probe(&DEVICES[i], &is_there, &why) == 0)
            return DEVICES[i].records();
    }
    const Device *device = device_named(name, error);
    return device == NULL ? NULL : device->records();
}
