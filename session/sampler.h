/* Choice of the next token from logits. The order of the filters is Hugging Face's: temperature, top-k, top-p, min-p.
 *
 *     Sampler sampler;
 *     SamplerOptions options = {.temperature = 0.8, .top_k = 200, .top_p = 1, .seed = 1};
 *     if (sampler_open(&sampler, &options, n_vocab, &error) < 0) …
 *     int32_t next = sampler_next(&sampler, logits);
 *     sampler_close(&sampler);
 */
#ifndef STOWKV_SAMPLER_H
#define STOWKV_SAMPLER_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct SamplerOptions {
    double temperature; /* 0: greedy, the most likely token, the lowest id among equals */
    size_t top_k;       /* keep the k most likely tokens; 0: all */
    double top_p;       /* of those, the fewest whose probabilities reach p; 1: all (Holtzman et al. 2020) */
    double min_p;       /* of those, the ones at least min_p times as likely as the best; 0: all */
    uint64_t seed;      /* the same seed gives the same text */
} SamplerOptions;

typedef struct Candidate {
    float logit;
    int32_t id;
} Candidate;

typedef struct Sampler {
    SamplerOptions options;
    uint64_t state; /* of the random generator */
    size_t n_vocab;
    Candidate *candidates; /* (n_vocab), owned */
    double *probabilities; /* (n_vocab), owned */
} Sampler;

int sampler_open(Sampler *sampler, const SamplerOptions *options, size_t n_vocab, Error *error);
void sampler_close(Sampler *sampler);
void sampler_reset(Sampler *sampler); /* back to the start of its seed */

/* logits: (n_vocab), finite. */
int32_t sampler_next(Sampler *sampler, const float *logits);

#endif
