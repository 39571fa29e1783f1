/* The CUDA backend: fills model/backend.h's table for an NVIDIA GPU from compute capability 7.5 on.
 *
 *     Backend *backend;
 *     if (cuda_backend_open(&backend, level, n_threads, &error) < 0) …
 *
 * All work goes into one stream in order; the host waits where it reads. A program that is built with it starts on
 * machines without a driver: that is looked for here. */
#ifndef STOWKV_CUDA_BACKEND_H
#define STOWKV_CUDA_BACKEND_H

#include "model/backend.h"

/* Whether cuda_backend_open() may be tried, from the driver and the architecture alone: 0, or ERROR_UNSUPPORTED, with
 * *is_there where a device or a driver is there. */
int cuda_backend_probe(bool *is_there, Error *error);

/* On the first device. `level` and n_threads (0: physical cores) are for packing weights on the host. Errors:
 * ERROR_UNSUPPORTED where there is no GPU, its driver is older than this build's runtime, or no kernels were built for
 * its architecture, or it fails while it is opened; ERROR_MEMORY. */
int cuda_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error);

/* The form of records that the backend's caches have; needs no device. */
const KvRecordForm *cuda_backend_records(void);

#endif
