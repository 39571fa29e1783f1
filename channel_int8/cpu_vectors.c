/* Rows in vectors, on all threads. Each step reads and writes memory once, in the order in which it lies there. Results
 * that the caches cannot hold go past them to memory. */
#include "base/checked.h"
#include "channel_int8/code.h"
#include "channel_int8/cpu_steps.h"

#include <string.h>

/* ---- Scales */

static void find_largest(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    size_t n_channels = cpu->matrix.n_channels;
    cpu->steps->kernels->find_largest(cpu->matrix.keys + begin * n_channels, end - begin, n_channels,
                                      cpu->largest + (size_t)thread * cpu->largest_stride);
}

static void vector_scales(ChannelCpu *cpu) {
    size_t n_channels = cpu->matrix.n_channels, n_threads = (size_t)thread_pool_size(cpu->pool);
    memset(cpu->largest, 0, n_threads * cpu->largest_stride * sizeof *cpu->largest);
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, CHANNEL_PIECES, find_largest, cpu);
    for (size_t d = 0; d < n_channels; d++) {
        uint32_t largest = 0;
        for (size_t thread = 0; thread < n_threads; thread++)
            largest = channel_larger(largest, cpu->largest[thread * cpu->largest_stride + d]);
        cpu->scales[d] = channel_scale(largest);
        cpu->inverses[d] = channel_inverse(cpu->scales[d]);
    }
    for (size_t d = n_channels; d < n_channels + CHANNEL_LINE; d++) {
        cpu->scales[d] = cpu->scales[d - n_channels];
        cpu->inverses[d] = cpu->inverses[d - n_channels];
    }
}

/* ---- Codes, and back */

static void encode_rows(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    size_t n_channels = cpu->matrix.n_channels, at = begin * n_channels;
    (void)thread;
    cpu->steps->kernels->encode(cpu->matrix.keys + at, cpu->scales, cpu->inverses, end - begin, n_channels,
                                cpu->codes + at, cpu->past_caches);
}

static void vector_codes(ChannelCpu *cpu) {
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, CHANNEL_PIECES, encode_rows, cpu);
}

static void decode_some(ChannelCpu *cpu, size_t first_token, size_t n_tokens, float *decoded) {
    cpu->steps->kernels->decode(cpu->codes + first_token * cpu->matrix.n_channels, cpu->scales, n_tokens,
                                cpu->matrix.n_channels, decoded, cpu->past_caches);
}

/* Where not all decoded rows have a place of their own, each thread has as many places as the others. */
static void decode_rows(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    size_t n_channels = cpu->matrix.n_channels;
    if (cpu->n_decoded == cpu->matrix.n_tokens) {
        decode_some(cpu, begin, end - begin, cpu->decoded + begin * n_channels);
        return;
    }
    size_t own = cpu->n_decoded / (size_t)thread_pool_size(cpu->pool);
    while (begin < end) {
        size_t place = begin % own, n = at_most(end - begin, own - place);
        decode_some(cpu, begin, n, cpu->decoded + ((size_t)thread * own + place) * n_channels);
        begin += n;
    }
}

static void vector_decode(ChannelCpu *cpu) {
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, CHANNEL_PIECES, decode_rows, cpu);
}

ChannelCpuSteps channel_cpu_vectors(SimdLevel level) {
    static const ChannelKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(channel_kernels);
    return (ChannelCpuSteps){{vector_scales, vector_codes, vector_decode}, decode_some, KERNELS[level]};
}
