/* The devices of --device: a table with a row for each backend. "auto" is the first of them that works. */
#ifndef STOWKV_DEVICES_H
#define STOWKV_DEVICES_H

#include "model/backend.h"

/* Opens the device of that name for a model (NULL: for any). "auto" passes over a device that does not work, or lacks
 * what the model needs; where it is there, the backend's `passed_over` says why. ERROR_USAGE: an unknown name;
 * ERROR_UNSUPPORTED: this build has no backend for it, or it does not work; ERROR_MEMORY, of "auto" too: a device whose
 * memory does not suffice is not passed over. */
int device_open(const char *name, const ModelConfig *config, Backend **out, SimdLevel level, int n_threads,
                Error *error);

/* The form of records that a cache on that device would have; opens none. NULL with an error as above; for "auto" it is
 * the first that seems to work. */
const KvRecordForm *device_records(const char *name, Error *error);

#endif
