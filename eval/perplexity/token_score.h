/* What a model's logits say about the token that came next, and how far they are from those of another cache: all from
 * logits, in double, over the whole vocabulary.
 *
 *     BaseRows base;
 *     if (base_rows_open(&base, n_batch, n_vocab, &error) < 0) …
 *     base_rows_set(&base, pool, full_logits, n_rows);                              // once for all policies
 *     score_tokens(pool, logits, targets, n_rows, n_vocab, &base, scores);
 *     base_rows_close(&base); */
#ifndef STOWKV_TOKEN_SCORE_H
#define STOWKV_TOKEN_SCORE_H

#include "base/machine/thread_pool.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct TokenScore {
    double nll;     /* -ln p(target), max-subtracted log-softmax */
    double kld;     /* sum over v of p_base(v) (ln p_base(v) - ln p(v)), in nats; 0 without a base */
    double delta_p; /* p(target) - p_base(target) */
    bool same_top;  /* the most likely token is the base's */
    bool right;     /* the most likely token is the target; the first of equals counts */
} TokenScore;

/* The base's side of a batch: its distribution at each position. */
typedef struct BaseRows {
    size_t n_rows, n_vocab; /* capacity */
    double *probabilities;  /* (n_rows, n_vocab) */
    double *log_sums;       /* (n_rows) ln of the sum of e^logit */
    size_t *tops;           /* (n_rows) the most likely token, the first of equals */
    const float *logits;    /* (n_rows, n_vocab), not owned */
} BaseRows;

int base_rows_open(BaseRows *base, size_t n_rows, size_t n_vocab, Error *error);
void base_rows_close(BaseRows *base); /* closing twice is fine */

/* `logits` must stay as they are for as long as they are scored against. */
void base_rows_set(BaseRows *base, ThreadPool *pool, const float *logits, size_t n_rows);

void score_tokens(ThreadPool *pool,
                  const float *logits,    // (n_rows, n_vocab)
                  const int32_t *targets, // (n_rows) the tokens that came next
                  size_t n_rows, size_t n_vocab,
                  const BaseRows *base, // or NULL
                  TokenScore *scores);  // (n_rows)

#endif
