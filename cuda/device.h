/* A device: whether there is one that can run our kernels, its memory, and its failures as errors. */
#ifndef STOWKV_CUDA_DEVICE_H
#define STOWKV_CUDA_DEVICE_H

#include "base/error.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct CudaDevice {
    char name[256];
    char description[288]; /* name and architecture: "NVIDIA H100 80GB HBM3, sm_90" */
    int architecture;      /* 90: compute capability 9.0 */
    size_t n_multiprocessors;
    cudaStream_t stream; /* owned */
} CudaDevice;

/* Whether the first device's driver and architecture are such that it may be opened; makes nothing on it. Fills what
 * `device` says of it, without a stream. ERROR_UNSUPPORTED where not; *is_there: a device or a driver is, so that
 * whoever has them wants to know. */
int cuda_device_probe(CudaDevice *device, bool *is_there, Error *error);

/* The same, and runs a kernel there, to know that one was built for it. ERROR_UNSUPPORTED; ERROR_MEMORY where the
 * device has none left for that. */
int cuda_device_open(CudaDevice *device, Error *error);
void cuda_device_close(CudaDevice *device);

/* `status` as an error of `what` ("reading logits"), or 0. */
int cuda_check(cudaError_t status, const char *what, Error *error);

/* Device memory; NULL with an error that says how much there is. Zeroed in the stream's order. */
void *cuda_device_allocate(CudaDevice *device, size_t size_bytes, const char *what, Error *error);
void cuda_device_release(void *memory); /* NULL is fine */

#endif
