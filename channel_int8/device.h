/* What a benchmark of per-channel INT8 (code.h) runs its variants on: the host's threads, or a GPU. Each fills this one
 * table of functions and lists its variants, a row for each; whoever measures knows nothing else of them.
 *
 *     ChannelDevice *device;
 *     if (channel_cpu_open(&device, n_threads, level, &error) < 0) ...
 *     device->ops->measure_copies(device, &bytes_per_second, &error);   // where the device has that
 *     for (v = 0; v < device->n_variants; v++) {
 *         device->ops->load(device, &device->variants[v], &matrix, &error); // device buffers, K uploaded
 *         for (step = 0; step < CHANNEL_STEP_COUNT; step++)                 // each has the results of those before
 *             if (device->variants[v].bytes[step] > 0)
 *                 device->ops->run(device, step, n_times, &ms, &error);
 *         device->ops->read_codes(device, first, n, codes, &error);         // for checks, in blocks of rows
 *         device->ops->unload(device);
 *     }
 *     device->ops->close(device);
 *
 * The GPU's is opened by cuda_channel_open() of cuda/channel_int8.h, in builds with CUDA: ERROR_UNSUPPORTED where there
 * is no GPU that can be used. */
#ifndef STOWKV_CHANNEL_DEVICE_H
#define STOWKV_CHANNEL_DEVICE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ChannelStep {
    CHANNEL_SCALES, /* of all channels, from K */
    CHANNEL_CODES,  /* from K and scales; of a fused variant scales too, which then has no step CHANNEL_SCALES */
    CHANNEL_DECODE, /* from codes and scales */
    CHANNEL_STEP_COUNT
} ChannelStep;

/* What moves the same bytes as a step and computes nothing, and copies of K: what steps are compared with. */
typedef enum ChannelMove {
    CHANNEL_MOVE_SCALES = CHANNEL_SCALES, /* reads 4 bytes an element */
    CHANNEL_MOVE_CODES = CHANNEL_CODES,   /* reads 4, writes 1 */
    CHANNEL_MOVE_DECODE = CHANNEL_DECODE, /* reads 1, writes 4 */
    CHANNEL_MOVE_COPY,                    /* reads 4, writes 4 */
    CHANNEL_MOVE_COUNT
} ChannelMove;

typedef struct ChannelVariant {
    const char *name; /* on the command line, among all devices' variants: "row_major", "cuda_vectorized" */
    const char *what; /* for people: "a thread, row after row" */
    bool is_baseline; /* others are compared with it */
    bool half_keys; /* reads keys that load() has rounded to FP16, and decodes to FP16: codes are those of such keys */
    bool host_scales; /* of a GPU: CHANNEL_SCALES runs on the host, over the host's keys, and uploads them */
    double bytes[CHANNEL_STEP_COUNT]; /* that a step as it is written moves for an element; 0: there is none */
    const void *kernels;              /* the device's own */
} ChannelVariant;

/* K on the host; it outlives load() to unload(). */
typedef struct ChannelMatrix {
    const float *keys; /* (n_tokens, n_channels) */
    size_t n_tokens, n_channels;
} ChannelMatrix;

/* What is outside of all steps, in milliseconds since load(); 0 of the host. */
typedef struct ChannelTransfers {
    double allocate_ms, upload_ms, download_ms; /* of what was read so far */
} ChannelTransfers;

typedef struct ChannelDevice ChannelDevice;

typedef struct ChannelDeviceOps {
    void (*close)(ChannelDevice *device);

    /* What copies within the device's memory read and write, bytes a second, measured now. NULL of a device that has
     * measure_move(), which tells that of what is loaded. */
    int (*measure_copies)(ChannelDevice *device, double *bytes_per_second, Error *error);

    /* Bytes that load() would take of the device's memory, and those that it has free. */
    void (*memory)(ChannelDevice *device, const ChannelVariant *variant, size_t n_tokens, size_t n_channels,
                   size_t *needed, size_t *available);

    /* Memory for everything, touched; one at a time. ERROR_MEMORY. */
    int (*load)(ChannelDevice *device, const ChannelVariant *variant, const ChannelMatrix *matrix, Error *error);
    void (*unload)(ChannelDevice *device); /* nothing loaded is fine */

    /* Runs a step n_times one behind the other, all of it done at the end; *ms is what one took. */
    int (*run)(ChannelDevice *device, ChannelStep step, size_t n_times, double *ms, Error *error);

    /* What plain loops read and write, bytes a second: in the pages of what is loaded, all of it as a step does, and
     * past the caches where steps write past them; several times as run(). Codes and decoded numbers have to be made
     * again behind it. NULL where the device has none. */
    int (*measure_move)(ChannelDevice *device, ChannelMove move, size_t n_times, double *bytes_per_second,
                        Error *error);

    /* Results of the loaded variant, to the host. Rows from first_token on; decoded ones may be made again for that by
     * the variant's own kernel. */
    int (*read_scales)(ChannelDevice *device, float *scales, Error *error); // (n_channels)
    int (*read_codes)(ChannelDevice *device, size_t first_token, size_t n_tokens,
                      int8_t *codes, // (n_tokens, n_channels)
                      Error *error);
    int (*read_decoded)(ChannelDevice *device, size_t first_token, size_t n_tokens,
                        float *decoded, // (n_tokens, n_channels)
                        Error *error);
} ChannelDeviceOps;

struct ChannelDevice {
    const ChannelDeviceOps *ops;
    const char *kind;               /* "cpu", "cuda" */
    char description[320];          /* "2 threads, avx512"; "NVIDIA H100 80GB HBM3, sm_90" */
    const ChannelVariant *variants; /* (n_variants) that run here */
    size_t n_variants;
    size_t cache_bytes;         /* of the last level; 0: not known */
    bool from_cache;            /* of what is loaded: it fits there, and run() does not go round several copies */
    ChannelTransfers transfers; /* of what is loaded */
};

#ifdef __cplusplus
}
#endif

#endif
