/* The devices of --device: a table with a row for each backend. */
#ifndef STOWKV_DEVICES_H
#define STOWKV_DEVICES_H

#include "model/backend.h"

typedef struct Device {
    const char *name;
    int (*open)(Backend **out, SimdLevel level, int n_threads, Error *error); /* as cpu_backend_open() */
    const KvRecordForm *(*records)(void); /* the form that its caches have; NULL: the build has no such backend */
} Device;

/* "auto" is the CPU. NULL with an error for an unknown name, or a device that this build has no backend for. */
const Device *device_named(const char *name, Error *error);

#endif
