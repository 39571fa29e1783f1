/* What quantization changes, and whether a variant computes what it should: its scales, codes and decoded numbers
 * against the reference in double (channel_int8/reference.h), element by element, and its errors against the keys.
 *
 *     QuantCheck check;
 *     if (quant_check_open(&check, pool, &matrix, seed, &error) < 0) …
 *     quant_check(&check, device, variant, &errors, &error);          // of what the device has loaded and run
 *     quant_check_close(&check); */
#ifndef STOWKV_QUANT_ERRORS_H
#define STOWKV_QUANT_ERRORS_H

#include "base/machine/thread_pool.h"
#include "channel_int8/device.h"

typedef struct QuantErrors {
    double l2;      /* sqrt(sum of (K - K~)^2) */
    double max_abs; /* largest |K - K~| */
    double score;   /* mean over the rows of |Q K - Q K~|, for one query Q, uniform in [-1, 1) */
    size_t n_wrong; /* scales, codes and decoded numbers that are not the reference's */
} QuantErrors;

typedef struct QuantCheck {
    ThreadPool *pool; /* not owned */
    ChannelMatrix matrix;
    bool of_halves;        /* scales and codes are those of keys rounded to FP16 */
    double *query;         /* (n_channels) */
    float *scales, *found; /* (n_channels) the reference's, a variant's */
    int8_t *expected;      /* (n_tokens, n_channels) the reference's codes */
    int8_t *codes;         /* (chunk_tokens, n_channels) a variant's */
    float *decoded;        /* (chunk_tokens, n_channels) */
    size_t chunk_tokens;
} QuantCheck;

/* Host memory that a check takes beside the keys. */
size_t quant_check_bytes(size_t n_tokens, size_t n_channels);

int quant_check_open(QuantCheck *check, ThreadPool *pool, const ChannelMatrix *matrix, uint64_t seed, Error *error);
void quant_check_close(QuantCheck *check); /* twice is fine */

/* The same figures for any number of threads. */
int quant_check(QuantCheck *check, ChannelDevice *device, const ChannelVariant *variant, QuantErrors *out,
                Error *error);

#endif
