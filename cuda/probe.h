/* A kernel that does nothing: whether kernels of this build run on a device. */
#ifndef STOWKV_CUDA_PROBE_H
#define STOWKV_CUDA_PROBE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

void cuda_probe(cudaStream_t stream); /* cudaGetLastError() then says whether it could be launched */

#ifdef __cplusplus
}
#endif

#endif
