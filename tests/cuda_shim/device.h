/* What a launch (threads.cc) and cuBLAS (blas.c) ask the simulated runtime (runtime.c). */
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

/* While a stream is captured its work is kept, not done: `redo` gets a copy of `data` when the graph is launched. */
bool cuda_shim_is_captured(cudaStream_t stream);
void cuda_shim_capture(cudaStream_t stream, void (*redo)(void *data, cudaStream_t stream), const void *data,
                       size_t data_bytes);

/* Counts a call: the error that it fails with whatever it is asked. Or fails a call with an error. */
cudaError_t cuda_shim_count_call(void);
cudaError_t cuda_shim_fail(cudaError_t error);

/* Bytes of shared memory that launches of the kernel may ask for, and the architecture's limit */
size_t cuda_shim_shared_limit(const void *kernel);
size_t cuda_shim_largest_shared_limit(void);

bool cuda_shim_is_device_memory(const void *memory, size_t size_bytes); /* all of it, in one allocation */
bool cuda_shim_has_blas(void);

#ifdef __cplusplus
}
#endif

#endif
