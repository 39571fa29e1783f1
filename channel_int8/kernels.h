/* Per-channel INT8 (code.h) in vectors, row after row, once for each instruction set. Rows are dense. Where results are
 * to go past the caches, what is written is not read from memory first, where the instruction set can. */
#ifndef STOWKV_CHANNEL_KERNELS_H
#define STOWKV_CHANNEL_KERNELS_H

#include "base/simd/levels.h"
#include "channel_int8/device.h"

#include <stddef.h>
#include <stdint.h>

/* Codes are made a line of the cache at a time, whatever the length of rows: so arrays of scales and inverses go on
 * with the first channels behind the last one, for CHANNEL_LINE elements more. */
#define CHANNEL_LINE 64

typedef struct ChannelKernels {
    /* Raises largest[d] to the bits of the largest magnitude in these rows. */
    void (*find_largest)(const float *keys, // (n_tokens, n_channels)
                         size_t n_tokens, size_t n_channels,
                         uint32_t *largest); // (n_channels)

    void (*encode)(const float *keys,                          // (n_tokens, n_channels)
                   const float *scales, const float *inverses, // (n_channels + CHANNEL_LINE) channel_inverse()
                   size_t n_tokens, size_t n_channels,
                   int8_t *codes, // (n_tokens, n_channels)
                   bool past_caches);

    void (*decode)(const int8_t *codes, // (n_tokens, n_channels)
                   const float *scales, // (n_channels + CHANNEL_LINE)
                   size_t n_tokens, size_t n_channels,
                   float *decoded, // (n_tokens, n_channels)
                   bool past_caches);

    /* What a step moves for n_lines times CHANNEL_LINE elements, without arithmetic; `to` is aligned to a line. */
    uint32_t (*move)(ChannelMove move, const void *from, void *to, size_t n_lines, bool past_caches);
} ChannelKernels;

SIMD_DECLARE(const ChannelKernels, channel_kernels, );

#endif
