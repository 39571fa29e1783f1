/* What code.h defines, in double and without its functions: the oracle of every variant. Serial, element by element. */
#ifndef STOWKV_CHANNEL_REFERENCE_H
#define STOWKV_CHANNEL_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

/* Raises largest[d] to the largest magnitude of some rows, NaN where one is not finite. It begins as 0. */
void channel_reference_largest(const float *keys, // (n_tokens, n_channels)
                               size_t n_tokens, size_t n_channels,
                               double *largest); // (n_channels)

void channel_reference_scales(const double *largest, size_t n_channels, float *scales); // (n_channels) both

void channel_reference_codes(const float *keys,   // (n_tokens, n_channels)
                             const float *scales, // (n_channels)
                             size_t n_tokens, size_t n_channels,
                             int8_t *codes); // (n_tokens, n_channels)

void channel_reference_decode(const int8_t *codes, const float *scales, size_t n_tokens, size_t n_channels,
                              float *decoded); // (n_tokens, n_channels)

#endif
