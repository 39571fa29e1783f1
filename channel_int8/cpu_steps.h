/* Between cpu.c, which holds a loaded matrix and its results, and the variants' loops over them. */
#ifndef STOWKV_CHANNEL_CPU_STEPS_H
#define STOWKV_CHANNEL_CPU_STEPS_H

#include "base/machine/thread_pool.h"
#include "channel_int8/device.h"
#include "channel_int8/kernels.h"

#define CHANNEL_PIECES 16 /* of a thread's share: one that is put aside holds up no more than the piece it is in */

typedef struct ChannelCpu ChannelCpu;

/* The loops of a variant; its ChannelVariant points at it. */
typedef struct ChannelCpuSteps {
    void (*run[CHANNEL_STEP_COUNT])(ChannelCpu *cpu);
    void (*decode_rows)(ChannelCpu *cpu, size_t first_token, size_t n_tokens, float *decoded); /* as run[] does */
    const ChannelKernels *kernels; /* NULL where they are not of vectors */
} ChannelCpuSteps;

struct ChannelCpu {
    ChannelDevice device;
    ThreadPool *pool;
    const ChannelCpuSteps *steps; /* of what is loaded; NULL: nothing is */
    ChannelMatrix matrix;
    uint32_t *largest; /* (n_threads, largest_stride) bits of the n_channels, from a page's beginning on: as keys */
    size_t largest_stride;
    float *scales, *inverses; /* (n_channels + CHANNEL_LINE), the first ones again at the end */
    int8_t *codes;            /* (n_tokens, n_channels) */
    float *decoded;           /* (n_decoded, n_channels) */
    size_t decoded_bytes;     /* at most, for what is decoded: more than the caches hold */
    size_t n_decoded;         /* rows that have a place at a time: all, or as many as decoded_bytes has */
    bool past_caches;         /* results are written past them */
    size_t map_bytes;         /* of the one piece of memory that all of these lie in, which begins at codes */
    ChannelCpuSteps vectors[SIMD_LEVEL_COUNT];
    ChannelVariant variants[2 + SIMD_LEVEL_COUNT];
};

/* cpu_loops.c */
extern const ChannelCpuSteps channel_cpu_column_walk, channel_cpu_row_major;

/* cpu_vectors.c; of a level that this machine runs. */
ChannelCpuSteps channel_cpu_vectors(SimdLevel level);

#endif
