/* What tests set on the simulated GPU, beyond what the runtime's interface offers.
 *
 *     cuda_shim_set_seed(3);
 *     cuda_shim_set_memory(1 << 20);
 *     cuda_shim_fail_after(12, cudaErrorLaunchFailure);
 *     …
 *     cuda_shim_reset();
 */
#ifndef STOWKV_CUDA_SHIM_SHIM_H
#define STOWKV_CUDA_SHIM_SHIM_H

#include <stdbool.h>
#include <stddef.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The order in which threads, warps and blocks run, what shared memory holds at first, and when asynchronous copies
 * arrive. 0, the default: in order, NaN, at the wait; 1: backwards, zeros, at once; others: at random. Environment
 * variable CUDA_SHIM_SEED sets it for the whole program. */
void cuda_shim_set_seed(unsigned seed);

void cuda_shim_set_memory(size_t size_bytes);          /* of the device; at first 1 TiB */
void cuda_shim_set_devices(int n);                     /* at first 1 */
void cuda_shim_set_versions(int driver, int runtime);  /* 13000 is CUDA 13.0; at first both */
void cuda_shim_set_architecture(int major, int minor); /* at first 9, 0 */
void cuda_shim_set_blas(bool is_there);                /* cuBLAS; at first there */

/* The n-th call of the runtime or launch from now on fails with the error: it returns it, or, a launch, leaves it to
 * cudaGetLastError(). After errors of the device itself, such as cudaErrorLaunchFailure, all later calls fail alike;
 * after cudaErrorMemoryAllocation, cudaErrorInvalidValue and their like they do not. What a failing call was to do is
 * not done, but for frees. 0: never. */
void cuda_shim_fail_after(long n_calls, cudaError_t error);

/* All settings and counts as at first, and no error. Memory stays as it is. */
void cuda_shim_reset(void);

typedef struct CudaShimCounts {
    long calls; /* that cuda_shim_fail_after() counts, launches included */
    long launches;
    long allocations;    /* of device and pinned memory */
    size_t device_bytes; /* allocated now */
    size_t n_allocated;  /* pieces of device memory, allocated now */
    bool failed;         /* the call that cuda_shim_fail_after() counted down to has come */
} CudaShimCounts;

CudaShimCounts cuda_shim_counts(void);

#ifdef __cplusplus
}
#endif

#endif
