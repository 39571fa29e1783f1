/* The tokens of a vocabulary in falling order of their logits, equal ones by id, without sorting them: which token is
 * at a place, by their number or by their probabilities. A pass over the logits puts each into one of 1,024 ranges and
 * adds up numbers and weights of each; what is asked for then lies in one range, which is cut again or sorted.
 *
 *     LogitOrder order;
 *     if (logit_order_open(&order, n_vocab, level, &error) < 0) …
 *     logit_order_read(&order, logits, temperature);
 *     Ranked token = logit_order_at_weight(&order, 0.9 * order.total);   // the last of a nucleus
 *     logit_order_close(&order);
 */
#ifndef STOWKV_LOGIT_ORDER_H
#define STOWKV_LOGIT_ORDER_H

#include "base/error.h"
#include "session/logit_kernels.h"

#define LOGIT_PARTS 4 /* sums beside each other, so that equal logits do not wait for one another */

typedef struct LogitBucket {
    double weight;
    size_t count;
} LogitBucket;

typedef struct LogitOrder {
    const LogitKernels *kernels;
    size_t n;
    const float *logits; /* (n), the caller's, as of logit_order_read() */
    float *weights;      /* (n) probabilities relative to the most likely token's */
    uint16_t *bucket_of; /* (n) */
    int32_t *ids;        /* (n) tokens of a bucket */
    size_t equal_bucket; /* the bucket in `ids` whose n_equal tokens all have one logit, or LOGIT_BUCKETS: none */
    size_t n_equal;
    double total;                                    /* the sum of weights */
    LogitBucket buckets[LOGIT_PARTS][LOGIT_BUCKETS]; /* [0]: of all tokens; [1]: of those of a bucket */
} LogitOrder;

/* A token and what comes before it. */
typedef struct Ranked {
    int32_t id;
    double weight;        /* its own */
    size_t n_before;      /* tokens */
    double weight_before; /* the sum of their weights */
} Ranked;

int logit_order_open(LogitOrder *order, size_t n, SimdLevel level, Error *error);
void logit_order_close(LogitOrder *order);

/* logits: (n), finite; read until the next call. temperature > 0. */
void logit_order_read(LogitOrder *order, const float *logits, double temperature);

/* The token at place `place` < n. */
Ranked logit_order_at(LogitOrder *order, size_t place);

/* The first token that, with all before it, has more weight than `weight`; the last one where there is none. */
Ranked logit_order_at_weight(LogitOrder *order, double weight);

/* The sum of the first k weights, k <= n. */
double logit_order_sum(LogitOrder *order, size_t k);

/* How many tokens have at least this weight. */
size_t logit_order_count(const LogitOrder *order, double weight);

#endif
