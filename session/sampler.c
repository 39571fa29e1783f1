/* Sampling; see sampler.h. */
#include "session/sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

int sampler_open(Sampler *sampler, const SamplerOptions *options, size_t n_vocab, Error *error) {
    *sampler = (Sampler){.options = *options, .state = options->seed, .n_vocab = n_vocab};
    sampler->candidates = calloc(n_vocab, sizeof *sampler->candidates);
    sampler->probabilities = calloc(n_vocab, sizeof *sampler->probabilities);
    if (sampler->candidates != NULL && sampler->probabilities != NULL)
        return 0;
    sampler_close(sampler);
    return error_memory(error, "the sampler", n_vocab * (sizeof(Candidate) + sizeof(double)));
}

void sampler_close(Sampler *sampler) {
    free(sampler->candidates);
    free(sampler->probabilities);
    *sampler = (Sampler){0};
}

void sampler_reset(Sampler *sampler) {
    sampler->state = sampler->options.seed;
}

/* Most likely first; the id decides between equals, so that the order is the same everywhere. */
static bool more_likely(Candidate a, Candidate b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

static int compare(const void *a, const void *b) {
    return more_likely(*(const Candidate *)a, *(const Candidate *)b) ? -1 : 1;
}

static int32_t argmax(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* Moves candidates[root] down a heap whose root is the least likely. */
static void sift_down(Candidate *heap, size_t n, size_t root) {
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && more_likely(heap[child], heap[child + 1]))
            child++;
        if (!more_likely(heap[root], heap[child]))
            return;
        Candidate swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}

/* Fills `candidates` with the k most likely tokens in falling order. */
static void select_top(const float *logits, size_t n, size_t k, Candidate *candidates) {
    for (size_t i = 0; i < k; i++)
        candidates[i] = (Candidate){logits[i], (int32_t)i};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(candidates, k, i);
    for (size_t i = k; i < n; i++) {
        Candidate candidate = {logits[i], (int32_t)i};
        if (more_likely(candidate, candidates[0])) {
            candidates[0] = candidate;
            sift_down(candidates, k, 0);
        }
    }
    qsort(candidates, k, sizeof *candidates, compare);
}

/* Probabilities relative to the best candidate; returns their sum. */
static double relative_probabilities(const Sampler *sampler, size_t n) {
    double sum = 0, best = (double)sampler->candidates[0].logit;
    for (size_t i = 0; i < n; i++) {
        double relative = exp(((double)sampler->candidates[i].logit - best) / sampler->options.temperature);
        sampler->probabilities[i] = relative;
        sum += relative;
    }
    return sum;
}

int32_t sampler_next(Sampler *sampler, const float *logits) {
    const SamplerOptions *options = &sampler->options;
    if (options->temperature == 0)
        return argmax(logits, sampler->n_vocab);
    size_t n = options->top_k > 0 && options->top_k < sampler->n_vocab ? options->top_k : sampler->n_vocab;
    select_top(logits, sampler->n_vocab, n, sampler->candidates);
    double sum = relative_probabilities(sampler, n);
    const double *p = sampler->probabilities;

    double kept = 0;
    size_t n_kept = 0;
    while (n_kept < n && (n_kept == 0 || (kept < options->top_p * sum && p[n_kept] >= options->min_p * p[0])))
        kept += p[n_kept++];

    double threshold = random_uniform(&sampler->state) * kept;
    for (size_t i = 0; i + 1 < n_kept; i++) {
        threshold -= p[i];
        if (threshold < 0)
            return sampler->candidates[i].id;
    }
    return sampler->candidates[n_kept - 1].id;
}
