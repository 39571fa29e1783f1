/* Rows in vectors, on all threads. Each step reads and writes memory once, in the order in which it lies there. Results
 * that the caches cannot hold are made in a piece that the first one does, and go past the others to memory. */
#include "base/checked.h"
#include "channel_int8/code.h"
#include "channel_int8/cpu_steps.h"

#include <string.h>

#define PIECES      16         /* of a thread's share: one that is put aside holds up no more than the piece it is in */
#define PIECE_BYTES (8 * 1024) /* of results that are made before they go to memory */

/* ---- Scales */

static void find_largest(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    size_t n_channels = cpu->matrix.n_channels;
    cpu->steps->kernels->find_largest(cpu->matrix.keys + begin * n_channels, end - begin, n_channels,
                                      cpu->largest + (size_t)thread * n_channels);
}

static void vector_scales(ChannelCpu *cpu) {
    size_t n_channels = cpu->matrix.n_channels, n_threads = (size_t)thread_pool_size(cpu->pool);
    memset(cpu->largest, 0, n_threads * n_channels * sizeof *cpu->largest);
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, PIECES, find_largest, cpu);
    for (size_t d = 0; d < n_channels; d++) {
        uint32_t largest = 0;
        for (size_t thread = 0; thread < n_threads; thread++)
            largest = channel_larger(largest, cpu->largest[thread * n_channels + d]);
        cpu->scales[d] = channel_scale(largest);
        cpu->inverses[d] = channel_inverse(cpu->scales[d]);
    }
}

/* ---- Results of n_tokens rows by way of a piece: whole rows of it, or parts of a long one. */

typedef struct Piece {
    size_t n_tokens, n_channels;
} Piece;

static Piece piece_of(size_t n_channels, size_t element_bytes) {
    size_t n = PIECE_BYTES / element_bytes;
    return (Piece){at_least(n / n_channels, 1), at_most(n_channels, n)};
}

static void encode_past_caches(ChannelCpu *cpu, size_t first, size_t n_tokens) {
    const ChannelKernels *kernels = cpu->steps->kernels;
    size_t n_channels = cpu->matrix.n_channels;
    Piece piece = piece_of(n_channels, sizeof(int8_t));
    int8_t codes[PIECE_BYTES];
    for (size_t t = 0; t < n_tokens; t += piece.n_tokens)
        for (size_t d = 0; d < n_channels; d += piece.n_channels) {
            size_t rows = at_most(piece.n_tokens, n_tokens - t), width = at_most(piece.n_channels, n_channels - d);
            size_t at = (first + t) * n_channels + d;
            kernels->encode(cpu->matrix.keys + at, cpu->scales + d, cpu->inverses + d, rows, width, codes);
            kernels->stream(cpu->codes + at, codes, rows * width * sizeof *codes);
        }
    kernels->stream_end();
}

static void decode_past_caches(ChannelCpu *cpu, size_t first, size_t n_tokens, float *out) {
    const ChannelKernels *kernels = cpu->steps->kernels;
    size_t n_channels = cpu->matrix.n_channels;
    Piece piece = piece_of(n_channels, sizeof(float));
    float decoded[PIECE_BYTES / sizeof(float)];
    for (size_t t = 0; t < n_tokens; t += piece.n_tokens)
        for (size_t d = 0; d < n_channels; d += piece.n_channels) {
            size_t rows = at_most(piece.n_tokens, n_tokens - t), width = at_most(piece.n_channels, n_channels - d);
            size_t at = t * n_channels + d;
            kernels->decode(cpu->codes + first * n_channels + at, cpu->scales + d, rows, width, decoded);
            kernels->stream(out + at, decoded, rows * width * sizeof *decoded);
        }
    kernels->stream_end();
}

/* ---- Codes, and back */

static void encode_rows(void *context, size_t begin, size_t end, int thread) {
    ChannelCpu *cpu = context;
    size_t n_channels = cpu->matrix.n_channels, at = begin * n_channels;
    (void)thread;
    if (cpu->past_caches)
        encode_past_caches(cpu, begin, end - begin);
    else
        cpu->steps->kernels->encode(cpu->matrix.keys + at, cpu->scales, cpu->inverses, end - begin, n_channels,
                                    cpu->codes + at);
}

static void vector_codes(ChannelCpu *cpu) {
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, PIECES, encode_rows, cpu);
}

static void decode_some(ChannelCpu *cpu, size_t first_token, size_t n_tokens, float *decoded) {
    if (cpu->past_caches)
        decode_past_caches(cpu, first_token, n_tokens, decoded);
    else
        cpu->steps->kernels->decode(cpu->codes + first_token * cpu->matrix.n_channels, cpu->scales, n_tokens,
                                    cpu->matrix.n_channels, decoded);
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
    thread_pool_share(cpu->pool, cpu->matrix.n_tokens, PIECES, decode_rows, cpu);
}

ChannelCpuSteps channel_cpu_vectors(SimdLevel level) {
    static const ChannelKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(channel_kernels);
    return (ChannelCpuSteps){{vector_scales, vector_codes, vector_decode}, decode_some, KERNELS[level]};
}
