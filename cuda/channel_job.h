/* A matrix in device memory, and what kernels of per-channel INT8 make of it. */
#ifndef STOWKV_CUDA_CHANNEL_JOB_H
#define STOWKV_CUDA_CHANNEL_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct CudaChannelJob {
    bool half_keys; /* keys and what is decoded are FP16, else F32 */
    size_t n_tokens, n_channels;
    const void *keys;                      // (n_tokens, n_channels)
    float *scales;                         // (n_channels)
    int8_t *codes;                         // (n_tokens, n_channels)
    void *decoded;                         // (n_tokens, n_channels)
    void *work;                            // (cuda_channel_work_bytes(n_channels))
    size_t cache_bytes, n_multiprocessors; /* of the device: a fused variant is cut accordingly */
} CudaChannelJob;

#endif
