/* See device_cache.h. */
#include "cuda/device_cache.h"

#include "base/checked.h"

#include <stdlib.h>

/* KvCache.device. The device's part is one piece of memory: CudaCache, layers, shapes, runs, counters. */
typedef struct CacheHandle {
    CudaCache *cache;           /* device, owned */
    unsigned long long *counts; /* device: bytes_read, tokens_encoded */
    size_t n_counts;            /* of both */
    unsigned long long *host;   /* (n_counts) owned */
    cudaStream_t stream;
    bool stale; /* kernels may have counted since the last collect() */
} CacheHandle;

/* ---- Counters */

static void add_counts(const KvCache *cache, const CacheHandle *handle) {
    size_t n_layers = cache->layout.shape.n_layers;
    const unsigned long long *read = handle->host, *entered = handle->host + n_layers * KV_MAX_STORES;
    for (size_t layer = 0; layer < n_layers; layer++)
        for (size_t store = 0; store < KV_MAX_STORES; store++) {
            cache->counters[layer].bytes_read[store] += read[layer * KV_MAX_STORES + store];
            cache->counters[layer].tokens_encoded[store] += entered[layer * KV_MAX_STORES + store];
        }
}

/* A device that fails here fails again where the next logits are read; its counts are then not trusted either. */
static void collect(const KvCache *cache) {
    CacheHandle *handle = cache->device;
    size_t size_bytes = handle->n_counts * sizeof *handle->host;
    if (!handle->stale)
        return;
    handle->stale = false;
    if (cudaMemcpyAsync(handle->host, handle->counts, size_bytes, cudaMemcpyDeviceToHost, handle->stream) !=
            cudaSuccess ||
        cudaMemsetAsync(handle->counts, 0, size_bytes, handle->stream) != cudaSuccess ||
        cudaStreamSynchronize(handle->stream) != cudaSuccess)
        return;
    add_counts(cache, handle);
}

CudaCache *cuda_cache_of(const KvCache *cache) {
    CacheHandle *handle = cache->device;
    handle->stale = true;
    return handle->cache;
}

/* ---- Opening */

void cuda_fragment_shapes(const KvCacheLayout *layout, FragmentShape *shapes) {
    for (size_t layer = 0; layer < layout->shape.n_layers; layer++)
        for (size_t store = KV_FIRST_ENCODED; store < layout->layers[layer].n_stores; store++)
            for (KvSide side = 0; side < KV_SIDES; side++) {
                const KvEncoding *encoding = &layout->layers[layer].stores[store].side[side];
                shapes[(layer * KV_MAX_STORES + store) * KV_SIDES + side] =
                    fragment_shape(encoding->codec, side, &encoding->group);
            }
}

/* What kernels know: made on the host, with pointers of the device, and copied there as it is. */
static int describe(CudaDevice *device, KvCache *cache, Error *error) {
    CacheHandle *handle = cache->device;
    size_t n_layers = cache->layout.shape.n_layers, n_stores = n_layers * KV_MAX_STORES;
    size_t layers_at = round_up(sizeof(CudaCache), KV_ALIGNMENT);
    size_t shapes_at = round_up(layers_at + n_layers * sizeof(KvLayerLayout), KV_ALIGNMENT);
    size_t runs_at = round_up(shapes_at + n_stores * KV_SIDES * sizeof(FragmentShape), KV_ALIGNMENT);
    size_t n_runs_at = round_up(runs_at + n_layers * KV_MAX_RUNS * sizeof(KvRun), KV_ALIGNMENT);
    size_t counts_at = round_up(n_runs_at + n_layers * sizeof(uint32_t), KV_ALIGNMENT);
    handle->n_counts = 2 * n_stores;
    size_t size_bytes = counts_at + handle->n_counts * sizeof *handle->host;
    handle->host = calloc(handle->n_counts, sizeof *handle->host);
    uint8_t *image = calloc(size_bytes, 1);
    uint8_t *memory = cuda_device_allocate(device, size_bytes, "the cache's layout", error);
    handle->cache = (CudaCache *)(void *)memory;
    if (image == NULL || handle->host == NULL || memory == NULL) {
        free(image);
        return memory == NULL ? error->code : error_memory(error, "the cache's layout", size_bytes);
    }
    CudaCache *described = (CudaCache *)(void *)image;
    *described = (CudaCache){.layout = cache->layout, .memory = cache->memory};
    described->layout.layers = (KvLayerLayout *)(void *)(memory + layers_at);
    described->shapes = (const FragmentShape *)(const void *)(memory + shapes_at);
    described->runs = (KvRun *)(void *)(memory + runs_at);
    described->n_runs = (uint32_t *)(void *)(memory + n_runs_at);
    described->bytes_read = handle->counts = (unsigned long long *)(void *)(memory + counts_at);
    described->tokens_encoded = described->bytes_read + n_stores;
    memcpy(image + layers_at, cache->layout.layers, n_layers * sizeof(KvLayerLayout));
    cuda_fragment_shapes(&cache->layout, (FragmentShape *)(void *)(image + shapes_at));
    cudaError_t status = cudaMemcpyAsync(memory, image, size_bytes, cudaMemcpyHostToDevice, device->stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(device->stream);
    free(image);
    return cuda_check(status, "the cache's layout", error);
}

/* ---- Where memory does not suffice */

static size_t policy_bytes(const KvShape *shape, const KvPolicy *policy) {
    KvCacheLayout layout;
    if (kvcache_layout_open(&layout, shape, policy, &KV_FRAGMENT_RECORDS, NULL) < 0)
        return SIZE_MAX;
    size_t size_bytes = layout.kept_bytes + layout.working_bytes;
    kvcache_layout_close(&layout);
    return size_bytes;
}

/* The flags of the first of a few policies that needs no more than free_bytes; NULL: none does. */
static const char *policy_that_fits(const KvShape *shape, size_t free_bytes) {
    const struct {
        KvPolicy policy;
        const char *flags;
    } choices[] = {{kv_policy_quantized(16, 32, KV_INT8, KV_INT8), "--quantize_kv"},
                   {kv_policy_quantized(16, 32, KV_INT4, KV_INT4), "--quantize_kv --kv_codec int4"},
                   {kv_policy_compressed(16, 32), "--compress_kv"}};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (policy_bytes(shape, &choices[i].policy) <= free_bytes)
            return choices[i].flags;
    return NULL;
}

static int explain_memory(const KvCache *cache, const char *what, Error *error) {
    size_t free_bytes = 0, total_bytes = 0, needed = kvcache_bytes(cache);
    cudaMemGetInfo(&free_bytes, &total_bytes);
    const char *flags = policy_that_fits(&cache->layout.shape, free_bytes);
    return error_set(error, ERROR_MEMORY,
                     "%s needs %.1f MB of the GPU's memory, of which %.1f MB are free; use %s%sa smaller --n_ctx, or "
                     "--device cpu",
                     what, (double)needed / 1e6, (double)free_bytes / 1e6, flags != NULL ? flags : "",
                     flags != NULL ? ", " : "");
}

int cuda_open_cache(CudaDevice *device, KvCache *cache, const KvShape *shape, const KvPolicy *policy, const char *what,
                    Error *error) {
    if (kvcache_open(cache, shape, policy, &KV_FRAGMENT_RECORDS, error) < 0)
        return error->code;
    CacheHandle *handle = calloc(1, sizeof *handle);
    cache->device = handle;
    if (handle == NULL) {
        cuda_close_cache(cache);
        return error_memory(error, what, sizeof *handle);
    }
    handle->stream = device->stream;
    kvcache_set_memory(cache, cuda_device_allocate(device, kvcache_bytes(cache), what, error));
    if (cache->memory == NULL && error->code == ERROR_MEMORY)
        explain_memory(cache, what, error);
    if (cache->memory != NULL && describe(device, cache, error) == 0) {
        cache->collect = collect;
        return 0;
    }
    cuda_close_cache(cache);
    return error->code;
}

void cuda_close_cache(KvCache *cache) {
    CacheHandle *handle = cache->device;
    if (handle != NULL) {
        cuda_device_release(handle->cache);
        free(handle->host);
        free(handle);
    }
    cuda_device_release(cache->memory);
    kvcache_close(cache);
}
