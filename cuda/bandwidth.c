/* See bandwidth.h. */
#include "cuda/bandwidth.h"

#include "base/checked.h"

#include <string.h>

#define MIB          ((size_t)1 << 20)
#define CACHE_TIMES  8
#define SMALLEST_MIB 64
#define N_COPIES     12
#define PATTERN      0x5a
#define CHECKED      4096 /* bytes, of the end */

/* The halves of one piece of memory. */
typedef struct Copying {
    cudaStream_t stream;
    uint8_t *from, *to; /* (size_bytes) device */
    size_t size_bytes;
    cudaEvent_t events[N_COPIES + 1]; /* before the first copy, and behind each */
} Copying;

static size_t choose_mib(size_t cache_bytes) {
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    size_t wanted = at_least(CACHE_TIMES * cache_bytes / MIB, SMALLEST_MIB);
    return at_least(at_most(wanted, free_bytes / 4 / MIB), 1);
}

static cudaError_t copy(const Copying *c) {
    return cudaMemcpyAsync(c->to, c->from, c->size_bytes, cudaMemcpyDeviceToDevice, c->stream);
}

static cudaError_t run(const Copying *c) {
    cudaError_t status = cudaMemsetAsync(c->from, PATTERN, c->size_bytes, c->stream);
    if (status == cudaSuccess)
        status = copy(c);
    if (status == cudaSuccess)
        status = cudaEventRecord(c->events[0], c->stream);
    for (size_t i = 1; i <= N_COPIES && status == cudaSuccess; i++) {
        status = copy(c);
        if (status == cudaSuccess)
            status = cudaEventRecord(c->events[i], c->stream);
    }
    return status == cudaSuccess ? cudaStreamSynchronize(c->stream) : status;
}

static cudaError_t find_best(const Copying *c, double *best) {
    *best = 0;
    for (size_t i = 0; i < N_COPIES; i++) {
        float ms;
        cudaError_t status = cudaEventElapsedTime(&ms, c->events[i], c->events[i + 1]);
        if (status != cudaSuccess)
            return status;
        double rate = ms > 0 ? 2 * (double)c->size_bytes / ((double)ms * 1e-3) : 0;
        *best = rate > *best ? rate : *best;
    }
    return cudaSuccess;
}

static int check_end(const Copying *c, Error *error) {
    uint8_t copied[CHECKED], expected[CHECKED];
    memset(expected, PATTERN, sizeof expected);
    if (cuda_check(cudaMemcpyAsync(copied, c->to + c->size_bytes - CHECKED, CHECKED, cudaMemcpyDeviceToHost, c->stream),
                   "reading a copy", error) < 0 ||
        cuda_check(cudaStreamSynchronize(c->stream), "reading a copy", error) < 0)
        return error->code;
    if (memcmp(copied, expected, CHECKED) == 0)
        return 0;
    return error_set(error, ERROR_FORMAT,
                     "a copy within the GPU's memory is wrong; this is a bug or failing memory, and no figure of this "
                     "run can be trusted");
}

static int measure(Copying *c, CopyBandwidth *out, Error *error) {
    cudaError_t status = cudaSuccess;
    for (size_t i = 0; i <= N_COPIES && status == cudaSuccess; i++)
        status = cudaEventCreate(&c->events[i]);
    if (status == cudaSuccess)
        status = run(c);
    if (status == cudaSuccess)
        status = find_best(c, &out->bytes_per_second);
    for (size_t i = 0; i <= N_COPIES && c->events[i] != NULL; i++)
        cudaEventDestroy(c->events[i]);
    return cuda_check(status, "copying within its memory", error) < 0 ? error->code : check_end(c, error);
}

int cuda_measure_copies(CudaDevice *device, CopyBandwidth *out, Error *error) {
    int cache_bytes = 0, number = 0;
    if (cuda_check(cudaGetDevice(&number), "asking for the size of its cache", error) < 0 ||
        cuda_check(cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, number),
                   "asking for the size of its cache", error) < 0)
        return error->code;
    Copying c = {.stream = device->stream, .size_bytes = choose_mib((size_t)cache_bytes) * MIB};
    *out = (CopyBandwidth){.buffer_bytes = c.size_bytes, .cache_bytes = (size_t)cache_bytes};
    c.from = cuda_device_allocate(device, 2 * c.size_bytes, "the buffers of the bandwidth measurement", error);
    if (c.from == NULL)
        return error->code;
    c.to = c.from + c.size_bytes;
    int status = measure(&c, out, error);
    cuda_device_release(c.from);
    return status;
}
