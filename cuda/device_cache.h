/* A KvCache in a device's memory, as the host opens and closes it: memory of the layout's size, and beside it what
 * kernels know of the cache (cuda/cache.h) and what they count. */
#ifndef STOWKV_CUDA_DEVICE_CACHE_H
#define STOWKV_CUDA_DEVICE_CACHE_H

#include "cuda/cache.h"
#include "cuda/device.h"
#include "kvcache/kvcache.h"

/* Opens `cache` with fragment records. ERROR_MEMORY names a policy that would fit, where there is one. */
int cuda_open_cache(CudaDevice *device, KvCache *cache, const KvShape *shape, const KvPolicy *policy, const char *what,
                    Error *error);
void cuda_close_cache(KvCache *cache); /* closing twice is fine */

/* Shapes of all records of a layout: (n_layers, KV_MAX_STORES, KV_SIDES), as CudaCache has them. */
void cuda_fragment_shapes(const KvCacheLayout *layout, FragmentShape *shapes);

/* What kernels take; from here on the cache's counters are read from the device anew. */
CudaCache *cuda_cache_of(const KvCache *cache);

#endif
