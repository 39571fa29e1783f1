/* How fast a device copies within its memory: what attention and products, which read everything once, are compared
 * with.
 *
 *     CopyBandwidth bandwidth;
 *     if (cuda_measure_copies(&device, &bandwidth, &error) < 0) …
 *     printf("%.1f GB/s\n", bandwidth.bytes_per_second / 1e9);
 */
#ifndef STOWKV_CUDA_BANDWIDTH_H
#define STOWKV_CUDA_BANDWIDTH_H

#include "cuda/device.h"
#include "model/backend.h"

/* Copies a buffer of eight times the L2 cache (at least 64 MiB, at most a quarter of the memory that is free, twice
 * that is allocated meanwhile) once to warm up and then several times, each timed by events; the best counts, as in
 * STREAM. The end of the copy is compared. ERROR_MEMORY, ERROR_IO, ERROR_FORMAT where the copy is wrong. */
int cuda_measure_copies(CudaDevice *device, CopyBandwidth *out, Error *error);

#endif
