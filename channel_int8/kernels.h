/* Per-channel INT8 (code.h) in vectors, row after row, once for each instruction set. Rows are dense. */
#ifndef STOWKV_CHANNEL_KERNELS_H
#define STOWKV_CHANNEL_KERNELS_H

#include "base/simd/levels.h"

#include <stddef.h>
#include <stdint.h>

typedef struct ChannelKernels {
    /* Raises largest[d] to the bits of the largest magnitude in these rows. */
    void (*find_largest)(const float *keys, // (n_tokens, n_channels)
                         size_t n_tokens, size_t n_channels,
                         uint32_t *largest); // (n_channels)

    void (*encode)(const float *keys,                                  // (n_tokens, n_channels)
                   const float *scales, const float *inverses,         // (n_channels) channel_inverse()
                   size_t n_tokens, size_t n_channels, int8_t *codes); // (n_tokens, n_channels)

    void (*decode)(const int8_t *codes,                                 // (n_tokens, n_channels)
                   const float *scales,                                 // (n_channels)
                   size_t n_tokens, size_t n_channels, float *decoded); // (n_tokens, n_channels)

    /* Copies past the caches where the instruction set can: what is written is not read from memory first. Other
     * threads may look for it behind stream_end(). */
    void (*stream)(void *to, const void *from, size_t size_bytes);
    void (*stream_end)(void);
} ChannelKernels;

SIMD_DECLARE(const ChannelKernels, channel_kernels, );

#endif
