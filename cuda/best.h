/* The greedy token: the largest of the logits, found where they are. */
#ifndef STOWKV_CUDA_BEST_H
#define STOWKV_CUDA_BEST_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A logit's place in the order of likelihood, in 64 bits: the larger logit first, the lower id among equals, and any
 * that is not finite before all others. */
typedef unsigned long long CudaBest;

/* Leaves the largest of all in *best: the same whatever the order of threads. */
void cuda_find_best(const float *logits, // (n) in device memory
                    size_t n,
                    CudaBest *best, // in device memory
                    cudaStream_t stream);

/* The id; -1 where some logit is not finite. */
int32_t cuda_best_token(CudaBest best);

#ifdef __cplusplus
}
#endif

#endif
