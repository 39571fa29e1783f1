/* Sampling; see sampler.h. */
#include "session/sampler.h"

#include "base/random.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SORTED_AT_MOST 512 /* tokens: so many are selected and sorted, with probabilities in double */
#define BLOCK          128 /* logits that are looked through at once for one that is likely enough */

int sampler_open(Sampler *sampler, const SamplerOptions *options, size_t n_vocab, SimdLevel level, Error *error) {
    *sampler = (Sampler){.options = *options, .state = options->seed, .n_vocab = n_vocab};
    sampler->candidates = calloc(SORTED_AT_MOST, sizeof *sampler->candidates);
    sampler->probabilities = calloc(SORTED_AT_MOST, sizeof *sampler->probabilities);
    int status = sampler->candidates != NULL && sampler->probabilities != NULL
                     ? logit_order_open(&sampler->order, n_vocab, level, error)
                     : error_memory(error, "the sampler", SORTED_AT_MOST * (sizeof(Candidate) + sizeof(double)));
    if (status == 0)
        status = penalties_open(&sampler->penalties, &options->penalties, n_vocab, error);
    if (status < 0)
        sampler_close(sampler);
    return status;
}

void sampler_close(Sampler *sampler) {
    free(sampler->candidates);
    free(sampler->probabilities);
    logit_order_close(&sampler->order);
    penalties_close(&sampler->penalties);
    *sampler = (Sampler){0};
}

void sampler_reset(Sampler *sampler) {
    sampler->state = sampler->options.seed;
    penalties_reset(&sampler->penalties);
}

bool sampler_is_argmax(const SamplerOptions *options) {
    return (options->temperature == 0 || options->top_k == 1 || options->top_p == 0) &&
           !penalties_are_on(&options->penalties);
}

int sampler_accept(Sampler *sampler, int32_t token, Error *error) {
    return penalties_accept(&sampler->penalties, token, error);
}

int sampler_draw_seed(uint64_t *seed, Error *error) {
    if (getrandom(seed, sizeof *seed, 0) != (ssize_t)sizeof *seed)
        return error_set(error, ERROR_IO, "no random numbers from the kernel (%s); give a --seed", strerror(errno));
    *seed >>= 11;
    return 0;
}

/* Most likely first; the id decides between equals, so that the order is the same everywhere. */
static bool more_likely(Candidate a, Candidate b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

static int compare(const void *a, const void *b) {
    return more_likely(*(const Candidate *)a, *(const Candidate *)b) ? -1 : 1;
}

static int32_t argmax(const Sampler *sampler, const float *logits) {
    float least, best;
    sampler->order.kernels->range(logits, sampler->n_vocab, &least, &best);
    size_t i = 0;
    while (i + 1 < sampler->n_vocab && logits[i] != best)
        i++;
    return (int32_t)i;
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

/* Fills `candidates` with the k most likely tokens in falling order. A later token that is as likely as the least
 * likely candidate comes behind it. */
static void select_top(Sampler *sampler, const float *logits, size_t k) {
    Candidate *candidates = sampler->candidates;
    for (size_t i = 0; i < k; i++)
        candidates[i] = (Candidate){logits[i], (int32_t)i};
    for (size_t i = k / 2; i-- > 0;)
        sift_down(candidates, k, i);
    for (size_t block = k; block < sampler->n_vocab; block += BLOCK) {
        size_t end = block + BLOCK < sampler->n_vocab ? block + BLOCK : sampler->n_vocab;
        float least, best;
        sampler->order.kernels->range(logits + block, end - block, &least, &best);
        for (size_t i = block; best > candidates[0].logit && i < end; i++)
            if (logits[i] > candidates[0].logit) {
                candidates[0] = (Candidate){logits[i], (int32_t)i};
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

/* Draws from the k most likely tokens, all of which are looked at. */
static int32_t draw_sorted(Sampler *sampler, const float *logits, size_t k) {
    const SamplerOptions *options = &sampler->options;
    select_top(sampler, logits, k);
    double sum = relative_probabilities(sampler, k);
    const double *p = sampler->probabilities;

    double kept = 0;
    size_t n_kept = 0;
    while (n_kept < k && (n_kept == 0 || (kept < options->top_p * sum && p[n_kept] >= options->min_p * p[0])))
        kept += p[n_kept++];

    double threshold = random_uniform(&sampler->state) * kept;
    for (size_t i = 0; i + 1 < n_kept; i++) {
        threshold -= p[i];
        if (threshold < 0)
            return sampler->candidates[i].id;
    }
    return sampler->candidates[n_kept - 1].id;
}

/* The same for any k: each filter keeps tokens from the most likely one on, so that a number says which. */
static int32_t draw_ranked(Sampler *sampler, const float *logits, size_t k) {
    const SamplerOptions *options = &sampler->options;
    LogitOrder *order = &sampler->order;
    logit_order_read(order, logits, options->temperature);
    size_t n_kept = k;
    if (options->top_p < 1) {
        double reached = nextafter(options->top_p * logit_order_sum(order, k), 0); /* or more */
        size_t n = logit_order_at_weight(order, reached).n_before + 1;
        n_kept = n < n_kept ? n : n_kept;
    }
    if (options->min_p > 0) {
        size_t n = logit_order_count(order, options->min_p);
        n_kept = n < n_kept ? n : n_kept;
    }
    double threshold = random_uniform(&sampler->state) * logit_order_sum(order, n_kept);
    Ranked chosen = logit_order_at_weight(order, threshold);
    return chosen.n_before < n_kept ? chosen.id : logit_order_at(order, n_kept - 1).id;
}

static int32_t choose(Sampler *sampler, const float *logits) {
    size_t top_k = sampler->options.top_k, k = top_k > 0 && top_k < sampler->n_vocab ? top_k : sampler->n_vocab;
    if (sampler->options.temperature == 0)
        return argmax(sampler, logits);
    return k <= SORTED_AT_MOST ? draw_sorted(sampler, logits, k) : draw_ranked(sampler, logits, k);
}

int32_t sampler_next(Sampler *sampler, float *logits) {
    penalties_apply(&sampler->penalties, logits);
    int32_t token = choose(sampler, logits);
    penalties_undo(&sampler->penalties, logits);
    return token;
}
