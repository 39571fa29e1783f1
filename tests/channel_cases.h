/* Matrices of which per-channel INT8 (channel_int8/code.h) could get something wrong, and comparisons of what was
 * computed with the reference in double, bit for bit. */
#ifndef STOWKV_CHANNEL_CASES_H
#define STOWKV_CHANNEL_CASES_H

#include "channel_int8/device.h"

/* What must come out of keys. */
typedef struct ChannelExpected {
    size_t n_tokens, n_channels;
    bool half_keys;
    float *keys; /* (n_tokens, n_channels) as a variant reads them: rounded to FP16 where it has half_keys */
    float *scales, *decoded;
    int8_t *codes;
} ChannelExpected;

ChannelExpected channel_expect(const float *keys, size_t n_tokens, size_t n_channels, bool half_keys);
void channel_expected_free(ChannelExpected *e);

/* Fails the test where something else was found by `name`. */
void channel_check(const ChannelExpected *e, const char *name, const float *scales, const int8_t *codes,
                   const float *decoded);

/* channel_check() of all variants of a device, on matrices of many shapes. Channels take turns: uniform numbers, ties,
 * numbers next to ties, zeros, subnormals, the largest floats, NaN and infinities. */
void check_channel_variants(ChannelDevice *device);

#endif
