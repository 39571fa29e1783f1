/* What a launch (threads.cc) asks the simulated runtime (runtime.c). */
#ifndef STOWKV_CUDA_SHIM_DEVICE_H
#define STOWKV_CUDA_SHIM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the device's memory to the kernel; false: the launch fails, as cuda_shim_fail_after() wished. */
bool cuda_shim_begin_launch(cudaStream_t stream);
void cuda_shim_end_launch(void);

/* Bytes of shared memory that launches of the kernel may ask for, and the architecture's limit */
size_t cuda_shim_shared_limit(const void *kernel);
size_t cuda_shim_largest_shared_limit(void);

#ifdef __cplusplus
}
#endif

#endif
