/* Choice of the next token from logits: penalties first; then the order of the filters is Hugging Face's, temperature,
 * top-k, top-p, min-p.
 *
 *     Sampler sampler;
 *     SamplerOptions options = {.temperature = 0.8, .top_k = 200, .top_p = 1, .seed = 1};
 *     if (sampler_open(&sampler, &options, n_vocab, level, &error) < 0) …
 *     if (sampler_accept(&sampler, token, &error) < 0) …        // each token that the model reads
 *     int32_t next = sampler_next(&sampler, logits);
 *     sampler_close(&sampler);
 */
#ifndef STOWKV_SAMPLER_H
#define STOWKV_SAMPLER_H

#include "session/logit_order.h"
#include "session/penalties.h"

typedef struct SamplerOptions {
    double temperature; /* 0: greedy, the most likely token, the lowest id among equals */
    size_t top_k;       /* keep the k most likely tokens; 0: all */
    double top_p;       /* of those, the fewest whose probabilities reach p; 1: all (Holtzman et al. 2020) */
    double min_p;       /* of those, the ones at least min_p times as likely as the best; 0: all */
    uint64_t seed;      /* the same seed gives the same text */
    Penalties penalties;
} SamplerOptions;

typedef struct Candidate {
    float logit;
    int32_t id;
} Candidate;

typedef struct Sampler {
    SamplerOptions options;
    uint64_t state; /* of the random generator */
    size_t n_vocab;
    LogitOrder order;
    PenaltyState penalties;
    Candidate *candidates; /* owned */
    double *probabilities; /* of the candidates, owned */
} Sampler;

/* `level`: one that runs (base/simd/detect.h). */
int sampler_open(Sampler *sampler, const SamplerOptions *options, size_t n_vocab, SimdLevel level, Error *error);
void sampler_close(Sampler *sampler);
void sampler_reset(Sampler *sampler); /* back to the start of its seed; no token was there before */

/* Whether sampler_next() gives nothing but the most likely token (the lowest id among equals) of the logits as they
 * are, whatever was read: who computes logits may then find it himself and need not hand them out. */
bool sampler_is_argmax(const SamplerOptions *options);

/* A token that the model reads, of the prompt or of the answer: penalties are about these. */
int sampler_accept(Sampler *sampler, int32_t token, Error *error);

/* logits: (n_vocab), finite; they are as before when it returns. */
int32_t sampler_next(Sampler *sampler, float *logits);

/* A seed that no run had: from the kernel's random numbers, below 2^53, so that every JSON reader can give it back. */
int sampler_draw_seed(uint64_t *seed, Error *error);

#endif
