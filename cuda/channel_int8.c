/* See channel_int8.h. What a variant is: channel_steps.h. */
#include "cuda/channel_int8.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "channel_int8/code.h"
#include "cuda/bandwidth.h"
#include "cuda/channel_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT       256
#define CACHE_TIMES     3    /* that keys and codes of all copies are as large as the cache */
#define CACHE_TIMES_MIN 2    /* less comes from the cache */
#define COPIES_MAX      1024 /* more would take longer to make than to run */
#define PIECE_NUMBERS   ((size_t)1 << 20)

/* ---- Variants */

typedef struct Launches {
    CudaChannelLaunch *of_step[CHANNEL_STEP_COUNT]; /* NULL: the host's, or none */
} Launches;

static const Launches NAIVE = {{cuda_channel_scales_naive, cuda_channel_codes_naive, cuda_channel_decode_naive}};
static const Launches TILED = {{cuda_channel_scales, cuda_channel_codes_tiled, cuda_channel_decode_tiled}};
static const Launches COARSENED = {{cuda_channel_scales, cuda_channel_codes_coarsened, cuda_channel_decode_coarsened}};
static const Launches VECTORIZED = {
    {cuda_channel_scales, cuda_channel_codes_vectorized, cuda_channel_decode_vectorized}};
static const Launches HOST_SCALES = {{NULL, cuda_channel_codes_vectorized, cuda_channel_decode_vectorized}};
static const Launches FUSED = {{NULL, cuda_channel_fused, cuda_channel_decode_vectorized}};

/* clang-format off */
static const ChannelVariant VARIANTS[] = {
    {"cuda_naive", "an element a thread; for scales a channel", false, false, false, {4, 5, 5}, &NAIVE},
    {"cuda_tiled", "tiles of 32 x 32 staged in shared memory", false, false, false, {4, 5, 5}, &TILED},
    {"cuda_coarsened", "four channels a thread", false, false, false, {4, 5, 5}, &COARSENED},
    {"cuda_vectorized", "16 bytes a load, eight loads a thread", false, false, false, {4, 5, 5}, &VECTORIZED},
    {"cuda_host_scales", "the same with scales from the host", false, false, true, {4, 5, 5}, &HOST_SCALES},
    {"cuda_fused", "scales and codes from one reading", false, false, false, {0, 5, 5}, &FUSED},
    {"cuda_vectorized_f16", "the vectorized kernels on FP16", false, true, false, {2, 3, 3}, &VECTORIZED},
    {"cuda_fused_f16", "the fused kernels on FP16", false, true, false, {0, 3, 3}, &FUSED},
};
/* clang-format on */

/* ---- What is loaded */

/* Copies of everything lie one behind the other, each with keys, codes and decoded numbers. */
typedef struct Sizes {
    size_t keys, codes, copy, scales, work; /* bytes, multiples of ALIGNMENT */
} Sizes;

typedef struct CudaChannelDevice {
    ChannelDevice device; /* first: what callers have */
    CudaDevice gpu;
    cudaEvent_t begin, end;
    /* Of what is loaded; NULL: nothing is */
    uint8_t *memory;
    float *host_scales; // (n_channels), of variants that have them
    const ChannelVariant *variant;
    ChannelMatrix matrix;
    Sizes sizes;
    size_t n_copies;
    size_t next[CHANNEL_STEP_COUNT]; /* copy */
    size_t coded;                    /* the copy that has been coded last */
    bool is_decoded;                 /* that copy */
} CudaChannelDevice;

static CudaChannelDevice *own(ChannelDevice *device) {
    return (CudaChannelDevice *)(void *)device;
}

static size_t key_bytes(const ChannelVariant *variant) {
    return variant->half_keys ? sizeof(uint16_t) : sizeof(float);
}

/* False where it is no size. */
static bool find_sizes(const ChannelVariant *variant, size_t n_tokens, size_t n_channels, Sizes *out) {
    size_t n, bytes, twice;
    return checked_mul(n_tokens, n_channels, &n) && checked_mul(n, key_bytes(variant), &bytes) &&
           checked_align(bytes, ALIGNMENT, &out->keys) && checked_align(n, ALIGNMENT, &out->codes) &&
           checked_mul(out->keys, 2, &twice) && checked_add(twice, out->codes, &out->copy) &&
           checked_align(n_channels * sizeof(float), ALIGNMENT, &out->scales) &&
           checked_align(cuda_channel_work_bytes(n_channels), ALIGNMENT, &out->work) && out->copy < SIZE_MAX / 4 &&
           out->work < SIZE_MAX / 4;
}

static size_t bytes_of(const Sizes *sizes, size_t n_copies) {
    return n_copies * sizes->copy + sizes->scales + sizes->work;
}

/* As many as make the cache useless, within half of the memory that is free. */
static size_t choose_copies(const CudaChannelDevice *d, const Sizes *sizes, size_t available) {
    size_t wanted = divide_up(CACHE_TIMES * d->device.cache_bytes, sizes->keys + sizes->codes);
    size_t affordable = available / 2 / sizes->copy;
    return at_least(at_most(at_most(wanted, affordable), COPIES_MAX), 1);
}

static CudaChannelJob job_of(const CudaChannelDevice *d, size_t copy) {
    uint8_t *shared = d->memory + d->n_copies * d->sizes.copy, *own_copy = d->memory + copy * d->sizes.copy;
    return (CudaChannelJob){.half_keys = d->variant->half_keys,
                            .n_tokens = d->matrix.n_tokens,
                            .n_channels = d->matrix.n_channels,
                            .keys = own_copy,
                            .codes = (int8_t *)own_copy + d->sizes.keys,
                            .decoded = own_copy + d->sizes.keys + d->sizes.codes,
                            .scales = (float *)(void *)shared,
                            .work = shared + d->sizes.scales,
                            .cache_bytes = d->device.cache_bytes,
                            .n_multiprocessors = d->gpu.n_multiprocessors};
}

/* ---- Up and down */

static int check(cudaError_t status, const char *what, Error *error) {
    return cuda_check(status, what, error);
}

/* Done when it returns, in the stream's order: the default stream's copies may still be on their way then, and the
 * stream would not wait for them. Adds its time to *ms. */
static cudaError_t transfer(CudaChannelDevice *d, void *to, const void *from, size_t size_bytes,
                            enum cudaMemcpyKind kind, double *ms) {
    double begin = clock_seconds();
    cudaError_t status = cudaMemcpyAsync(to, from, size_bytes, kind, d->gpu.stream);
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(d->gpu.stream);
    *ms += (clock_seconds() - begin) * 1e3;
    return status;
}

static cudaError_t upload(CudaChannelDevice *d, void *to, const void *from, size_t size_bytes) {
    return transfer(d, to, from, size_bytes, cudaMemcpyHostToDevice, &d->device.transfers.upload_ms);
}

/* All keys as FP16, through a buffer of the host. */
static int upload_halves(CudaChannelDevice *d, uint16_t *to, Error *error) {
    size_t n = d->matrix.n_tokens * d->matrix.n_channels;
    uint16_t *piece = malloc(PIECE_NUMBERS * sizeof *piece);
    cudaError_t status = cudaSuccess;
    if (piece == NULL)
        return error_set(error, ERROR_MEMORY, "no memory for %zu keys as FP16; free some", PIECE_NUMBERS);
    for (size_t first = 0; first < n && status == cudaSuccess; first += PIECE_NUMBERS) {
        size_t count = at_most(n - first, PIECE_NUMBERS);
        for (size_t i = 0; i < count; i++)
            piece[i] = half_from_float(d->matrix.keys[first + i]);
        status = upload(d, to + first, piece, count * sizeof *piece);
    }
    free(piece);
    return check(status, "uploading keys", error);
}

static int upload_keys(CudaChannelDevice *d, Error *error) {
    if (d->variant->half_keys)
        return upload_halves(d, (uint16_t *)(void *)d->memory, error);
    size_t n_bytes = d->matrix.n_tokens * d->matrix.n_channels * sizeof *d->matrix.keys;
    return check(upload(d, d->memory, d->matrix.keys, n_bytes), "uploading keys", error);
}

/* What no kernel has written is NaN, and no code. */
static int fill_copies(CudaChannelDevice *d, Error *error) {
    cudaStream_t stream = d->gpu.stream;
    cudaError_t status = cudaMemsetAsync(job_of(d, 0).scales, 0xff, d->sizes.scales, stream);
    for (size_t i = 0; i < d->n_copies && status == cudaSuccess; i++) {
        CudaChannelJob job = job_of(d, i);
        if (i > 0)
            status = cudaMemcpyAsync((void *)job.keys, d->memory, d->sizes.keys, cudaMemcpyDeviceToDevice, stream);
        if (status == cudaSuccess)
            status = cudaMemsetAsync(job.codes, 0x80, d->sizes.codes, stream);
        if (status == cudaSuccess)
            status = cudaMemsetAsync(job.decoded, 0xff, d->sizes.keys, stream);
    }
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(stream);
    return check(status, "filling its memory", error);
}

static int download(CudaChannelDevice *d, void *to, const void *from, size_t size_bytes, Error *error) {
    return check(transfer(d, to, from, size_bytes, cudaMemcpyDeviceToHost, &d->device.transfers.download_ms),
                 "reading results", error);
}

/* ---- Steps */

/* Row after row; what the published comparison does before its kernels. */
static int make_host_scales(CudaChannelDevice *d, Error *error) {
    size_t n_channels = d->matrix.n_channels;
    uint32_t *largest = calloc(n_channels, sizeof *largest);
    if (largest == NULL)
        return error_set(error, ERROR_MEMORY, "no memory for the largest keys of %zu channels; free some", n_channels);
    for (size_t t = 0; t < d->matrix.n_tokens; t++)
        for (size_t i = 0; i < n_channels; i++)
            largest[i] = channel_larger(largest[i], channel_magnitude(d->matrix.keys[t * n_channels + i]));
    for (size_t i = 0; i < n_channels; i++)
        d->host_scales[i] = channel_scale(largest[i]);
    free(largest);
    double ms = 0; /* part of the step's */
    return check(
        transfer(d, job_of(d, 0).scales, d->host_scales, n_channels * sizeof(float), cudaMemcpyHostToDevice, &ms),
        "uploading scales", error);
}

static int run_on_host(CudaChannelDevice *d, size_t n_times, double *ms, Error *error) {
    double begin = clock_seconds();
    for (size_t i = 0; i < n_times; i++)
        if (make_host_scales(d, error) < 0)
            return error->code;
    *ms = (clock_seconds() - begin) * 1e3 / (double)n_times;
    return 0;
}

static cudaError_t launch_times(CudaChannelDevice *d, ChannelStep step, size_t n_times) {
    CudaChannelLaunch *launch = ((const Launches *)d->variant->kernels)->of_step[step];
    cudaError_t status = cudaEventRecord(d->begin, d->gpu.stream);
    for (size_t i = 0; i < n_times && status == cudaSuccess; i++) {
        CudaChannelJob job = job_of(d, d->next[step]);
        if (step == CHANNEL_CODES)
            d->coded = d->next[step];
        d->next[step] = (d->next[step] + 1) % d->n_copies;
        launch(&job, d->gpu.stream);
        status = cudaGetLastError();
    }
    if (status == cudaSuccess)
        status = cudaEventRecord(d->end, d->gpu.stream);
    return status == cudaSuccess ? cudaEventSynchronize(d->end) : status;
}

static int run(ChannelDevice *device, ChannelStep step, size_t n_times, double *ms, Error *error) {
    CudaChannelDevice *d = own(device);
    float all_ms = 0;
    *ms = 0;
    if (d->variant->bytes[step] == 0 || n_times == 0)
        return 0;
    d->is_decoded = false;
    if (d->variant->host_scales && step == CHANNEL_SCALES)
        return run_on_host(d, n_times, ms, error);
    cudaError_t status = launch_times(d, step, n_times);
    if (status == cudaSuccess)
        status = cudaEventElapsedTime(&all_ms, d->begin, d->end);
    *ms = (double)all_ms / (double)n_times;
    return check(status, d->variant->name, error);
}

/* ---- The table */

static void close_device(ChannelDevice *device) {
    CudaChannelDevice *d = own(device);
    device->ops->unload(device);
    if (d->begin != NULL)
        cudaEventDestroy(d->begin);
    if (d->end != NULL)
        cudaEventDestroy(d->end);
    cuda_device_close(&d->gpu);
    free(d);
}

static int measure_copies(ChannelDevice *device, double *bytes_per_second, Error *error) {
    CopyBandwidth bandwidth = {0};
    if (cuda_measure_copies(&own(device)->gpu, &bandwidth, error) < 0)
        return error->code;
    *bytes_per_second = bandwidth.bytes_per_second;
    return 0;
}

static void memory(ChannelDevice *device, const ChannelVariant *variant, size_t n_tokens, size_t n_channels,
                   size_t *needed, size_t *available) {
    Sizes sizes;
    size_t total;
    (void)device;
    *needed = find_sizes(variant, n_tokens, n_channels, &sizes) ? bytes_of(&sizes, 1) : SIZE_MAX;
    if (cudaMemGetInfo(available, &total) != cudaSuccess)
        *available = 0;
}

static int allocate(CudaChannelDevice *d, size_t needed, size_t available, Error *error) {
    double begin = clock_seconds();
    d->n_copies = choose_copies(d, &d->sizes, available);
    cudaError_t status = cudaMalloc((void **)&d->memory, bytes_of(&d->sizes, d->n_copies));
    if (status == cudaSuccess)
        status = cudaDeviceSynchronize();
    d->device.transfers.allocate_ms = (clock_seconds() - begin) * 1e3;
    if (status != cudaErrorMemoryAllocation)
        return check(status, "allocating memory", error);
    cudaGetLastError();
    d->memory = NULL;
    return error_set(error, ERROR_MEMORY,
                     "%zux%zu needs %.1f MB of the GPU's memory, of which %.1f MB are free; free some, or leave that "
                     "shape out",
                     d->matrix.n_tokens, d->matrix.n_channels, (double)needed / 1e6, (double)available / 1e6);
}

static void unload(ChannelDevice *device) {
    CudaChannelDevice *d = own(device);
    cuda_device_release(d->memory);
    free(d->host_scales);
    d->memory = NULL;
    d->host_scales = NULL;
    device->from_cache = false;
    device->transfers = (ChannelTransfers){0};
}

static int load(ChannelDevice *device, const ChannelVariant *variant, const ChannelMatrix *matrix, Error *error) {
    CudaChannelDevice *d = own(device);
    size_t needed, available;
    unload(device);
    d->variant = variant;
    d->matrix = *matrix;
    d->coded = 0;
    d->is_decoded = false;
    memset(d->next, 0, sizeof d->next);
    memory(device, variant, matrix->n_tokens, matrix->n_channels, &needed, &available);
    if (!find_sizes(variant, matrix->n_tokens, matrix->n_channels, &d->sizes))
        return error_set(error, ERROR_MEMORY, "%zux%zu is more than any GPU has memory for; leave that shape out",
                         matrix->n_tokens, matrix->n_channels);
    if (allocate(d, needed, available, error) < 0)
        return error->code;
    if (variant->host_scales)
        d->host_scales = malloc(matrix->n_channels * sizeof *d->host_scales);
    if (variant->host_scales && d->host_scales == NULL)
        error_set(error, ERROR_MEMORY, "no memory for %zu scales; free some", matrix->n_channels);
    else if (upload_keys(d, error) == 0 && fill_copies(d, error) == 0) {
        device->from_cache = d->n_copies * (d->sizes.keys + d->sizes.codes) < CACHE_TIMES_MIN * d->device.cache_bytes;
        return 0;
    }
    unload(device);
    return error->code;
}

static int read_scales(ChannelDevice *device, float *scales, Error *error) {
    CudaChannelDevice *d = own(device);
    return download(d, scales, job_of(d, 0).scales, d->matrix.n_channels * sizeof *scales, error);
}

static int read_codes(ChannelDevice *device, size_t first_token, size_t n_tokens, int8_t *codes, Error *error) {
    CudaChannelDevice *d = own(device);
    size_t n_channels = d->matrix.n_channels;
    return download(d, codes, job_of(d, d->coded).codes + first_token * n_channels, n_tokens * n_channels, error);
}

/* Of the copy that was coded last, which is not the one that was decoded last. */
static int decode_coded(CudaChannelDevice *d, Error *error) {
    CudaChannelJob job = job_of(d, d->coded);
    if (d->is_decoded)
        return 0;
    ((const Launches *)d->variant->kernels)->of_step[CHANNEL_DECODE](&job, d->gpu.stream);
    cudaError_t status = cudaGetLastError();
    if (status == cudaSuccess)
        status = cudaStreamSynchronize(d->gpu.stream);
    d->is_decoded = status == cudaSuccess;
    return check(status, d->variant->name, error);
}

static int read_decoded(ChannelDevice *device, size_t first_token, size_t n_tokens, float *decoded, Error *error) {
    CudaChannelDevice *d = own(device);
    size_t first = first_token * d->matrix.n_channels, n = n_tokens * d->matrix.n_channels;
    if (decode_coded(d, error) < 0)
        return error->code;
    const uint8_t *from = (const uint8_t *)job_of(d, d->coded).decoded + first * key_bytes(d->variant);
    if (!d->variant->half_keys)
        return download(d, decoded, from, n * sizeof *decoded, error);
    /* Into the second half of the room for floats, which are then made of it from the front. */
    uint8_t *halves = (uint8_t *)decoded + n * sizeof(uint16_t);
    if (download(d, halves, from, n * sizeof(uint16_t), error) < 0)
        return error->code;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, halves + i * sizeof half, sizeof half);
        decoded[i] = half_to_float(half);
    }
    return 0;
}

static const ChannelDeviceOps OPS = {.close = close_device,
                                     .measure_copies = measure_copies,
                                     .memory = memory,
                                     .load = load,
                                     .unload = unload,
                                     .run = run,
                                     .read_scales = read_scales,
                                     .read_codes = read_codes,
                                     .read_decoded = read_decoded};

static int open_events(CudaChannelDevice *d, Error *error) {
    int cache_bytes = 0;
    cudaError_t status = cudaEventCreate(&d->begin);
    if (status == cudaSuccess)
        status = cudaEventCreate(&d->end);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, 0);
    d->device.cache_bytes = (size_t)cache_bytes;
    return check(status, "opening the GPU", error);
}

int cuda_channel_open(ChannelDevice **out, Error *error) {
    CudaChannelDevice *d = calloc(1, sizeof *d);
    *out = NULL;
    if (d == NULL)
        return error_set(error, ERROR_MEMORY, "no memory to open the GPU; free some");
    if (cuda_device_open(&d->gpu, error) < 0) {
        free(d);
        return error->code;
    }
    d->device = (ChannelDevice){
        .ops = &OPS, .kind = "cuda", .variants = VARIANTS, .n_variants = sizeof VARIANTS / sizeof *VARIANTS};
    snprintf(d->device.description, sizeof d->device.description, "%s", d->gpu.description);
    if (open_events(d, error) < 0) {
        close_device(&d->device);
        return error->code;
    }
    *out = &d->device;
    return 0;
}
