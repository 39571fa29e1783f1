/* Kernels of per-channel INT8 (channel_int8/code.h): what each step of each variant launches. Matrices lie in device
 * memory, rows of tokens, in pieces that are aligned to 16 bytes; any number of channels will do. Times and memory are
 * the business of channel_int8.c. */
#ifndef STOWKV_CUDA_CHANNEL_STEPS_H
#define STOWKV_CUDA_CHANNEL_STEPS_H

#include "cuda/channel_job.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void CudaChannelLaunch(const CudaChannelJob *job, cudaStream_t stream);

/* The largest magnitudes of all channels while they are sought, and what blocks of threads tell each other. */
size_t cuda_channel_work_bytes(size_t n_channels);

/* Scales. Naive: a thread goes down a channel. Else blocks of threads share out the tokens, and largest magnitudes meet
 * in atomicMax() of their bits, whose result does not depend on the order. */
CudaChannelLaunch cuda_channel_scales_naive, cuda_channel_scales;

/* Codes, from scales, a thread having: an element; an element that was staged in shared memory with the others of a
 * tile; four of a row; 16 bytes of eight rows. */
CudaChannelLaunch cuda_channel_codes_naive, cuda_channel_codes_tiled, cuda_channel_codes_coarsened,
    cuda_channel_codes_vectorized;

/* Scales and codes in one launch that reads keys from memory once: see channel_fused.cu. */
CudaChannelLaunch cuda_channel_fused;

/* What codes and scales say, in the type of the keys; the same four ways. */
CudaChannelLaunch cuda_channel_decode_naive, cuda_channel_decode_tiled, cuda_channel_decode_coarsened,
    cuda_channel_decode_vectorized;

#ifdef __cplusplus
}
#endif

#endif
