/* Numbers to encode: made up, of three distributions, and keys and values that a model has made of a text.
 *
 *     CodecSamples samples = {0};
 *     if (samples_make(&samples, seed, &error) < 0 || samples_capture(&samples, &session, text, &interrupted, &error) <
 * 0) … samples_free(&samples); */
#ifndef STOWKV_QUANT_SAMPLES_H
#define STOWKV_QUANT_SAMPLES_H

#include "base/string_view.h"
#include "kvcache/codec/codec.h"
#include "session/session.h"

#include <signal.h>

#define SAMPLE_TOKENS   64  /* of a group: what shares scales is within it */
#define SAMPLE_HEAD_DIM 128 /* of what is made up */
#define SAMPLE_GROUPS   32
#define SAMPLES_MAX     8
#define CAPTURE_TOKENS  512 /* that a model reads at most */

/* Groups of one side of a head. */
typedef struct CodecSample {
    const char *name;
    bool has_side[KV_SIDES]; /* made-up numbers are encoded as both */
    size_t n_groups, head_dim;
    float *values; /* (n_groups, SAMPLE_TOKENS, head_dim) */
} CodecSample;

typedef struct CodecSamples {
    CodecSample items[SAMPLES_MAX];
    size_t count;
} CodecSamples;

/* Normal; heavy tails: Student's t with 3 degrees of freedom; and normal with one channel in sixteen 20 times as large,
 * as keys of many models have them. */
int samples_make(CodecSamples *samples, uint64_t seed, Error *error);

/* Keys, rotated by RoPE, and values of all layers and heads, as the cache gets them. ERROR_ARGUMENT where the text has
 * less than a group of tokens. */
int samples_capture(CodecSamples *samples, Session *session, StringView text, const volatile sig_atomic_t *interrupted,
                    Error *error);

void samples_free(CodecSamples *samples); /* twice is fine */

#endif
