/* See token_score.h. */
#include "eval/perplexity/token_score.h"

#include <math.h>
#include <stdlib.h>

int base_rows_open(BaseRows *base, size_t n_rows, size_t n_vocab, Error *error) {
    *base = (BaseRows){.n_rows = n_rows,
                       .n_vocab = n_vocab,
                       .probabilities = calloc(n_rows * n_vocab, sizeof(double)),
                       .log_sums = calloc(n_rows, sizeof(double)),
                       .tops = calloc(n_rows, sizeof(size_t))};
    if (base->probabilities != NULL && base->log_sums != NULL && base->tops != NULL)
        return 0;
    base_rows_close(base);
    return error_memory(error, "the full cache's distributions", n_rows * n_vocab * sizeof(double));
}

void base_rows_close(BaseRows *base) {
    free(base->probabilities);
    free(base->log_sums);
    free(base->tops);
    *base = (BaseRows){0};
}

static size_t top_token(const float *logits, size_t n_vocab) {
    size_t top = 0;
    for (size_t v = 1; v < n_vocab; v++)
        if (logits[v] > logits[top])
            top = v;
    return top;
}

/* ln of the sum of e^logit; where `exponentials` is not NULL it gets e^(logit - max), and the return value is still the
 * logarithm of the whole sum. */
static double log_sum(const float *logits, size_t n_vocab, size_t top, double *exponentials) {
    double max = logits[top], sum = 0;
    for (size_t v = 0; v < n_vocab; v++) {
        double e = exp((double)logits[v] - max);
        if (exponentials != NULL)
            exponentials[v] = e;
        sum += e;
    }
    return max + log(sum);
}

static void set_rows(void *context, size_t begin, size_t end, int thread) {
    BaseRows *base = context;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const float *logits = base->logits + row * base->n_vocab;
        double *p = base->probabilities + row * base->n_vocab;
        size_t top = base->tops[row] = top_token(logits, base->n_vocab);
        base->log_sums[row] = log_sum(logits, base->n_vocab, top, p);
        double scale = exp((double)logits[top] - base->log_sums[row]);
        for (size_t v = 0; v < base->n_vocab; v++)
            p[v] *= scale;
    }
}

void base_rows_set(BaseRows *base, ThreadPool *pool, const float *logits, size_t n_rows) {
    base->logits = logits;
    thread_pool_run(pool, n_rows, 1, set_rows, base);
}

typedef struct ScoreJob {
    const float *logits;
    const int32_t *targets;
    size_t n_vocab;
    const BaseRows *base;
    TokenScore *scores;
} ScoreJob;

static void compare_row(const BaseRows *base, size_t row, const float *logits, double sum, size_t top, size_t target,
                        TokenScore *score) {
    const float *base_logits = base->logits + row * base->n_vocab;
    const double *p = base->probabilities + row * base->n_vocab;
    double base_sum = base->log_sums[row], kld = 0;
    for (size_t v = 0; v < base->n_vocab; v++)
        kld += p[v] * (((double)base_logits[v] - base_sum) - ((double)logits[v] - sum));
    score->kld = kld;
    score->delta_p = exp((double)logits[target] - sum) - exp((double)base_logits[target] - base_sum);
    score->same_top = top == base->tops[row];
}

static void score_rows(void *context, size_t begin, size_t end, int thread) {
    const ScoreJob *job = context;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const float *logits = job->logits + row * job->n_vocab;
        size_t top = top_token(logits, job->n_vocab), target = (size_t)job->targets[row];
        double sum = log_sum(logits, job->n_vocab, top, NULL);
        TokenScore score = {.nll = sum - (double)logits[target], .right = top == target};
        if (job->base != NULL)
            compare_row(job->base, row, logits, sum, top, target, &score);
        job->scores[row] = score;
    }
}

void score_tokens(ThreadPool *pool, const float *logits, const int32_t *targets, size_t n_rows, size_t n_vocab,
                  const BaseRows *base, TokenScore *scores) {
    thread_pool_run(pool, n_rows, 1, score_rows, &(ScoreJob){logits, targets, n_vocab, base, scores});
}
