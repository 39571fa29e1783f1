/* See logit_order.h. */
#include "session/logit_order.h"

#include <float.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SORTED_AT_MOST   64     /* tokens: fewer are sorted, more are cut into ranges again */
#define LEAST_DIFFERENCE 1e-30f /* between logits; what is less cannot be cut in F32 */
#define STRIDE           64     /* tokens that are looked through at once for those of a bucket */

int logit_order_open(LogitOrder *order, size_t n, SimdLevel level, Error *error) {
    static const LogitKernels *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_ADDRESSES(logit_kernels);
    *order = (LogitOrder){.kernels = KERNELS[level], .n = n};
    order->weights = calloc(n, sizeof *order->weights);
    order->bucket_of = calloc(n, sizeof *order->bucket_of);
    order->ids = calloc(n, sizeof *order->ids);
    if (order->weights != NULL && order->bucket_of != NULL && order->ids != NULL)
        return 0;
    logit_order_close(order);
    return error_memory(error, "the sampler", n * (sizeof(float) + sizeof(uint16_t) + sizeof(int32_t)));
}

void logit_order_close(LogitOrder *order) {
    free(order->weights);
    free(order->bucket_of);
    free(order->ids);
    order->weights = NULL;
    order->bucket_of = NULL;
    order->ids = NULL;
}

/* So that the largest logit is in bucket 0 and the least in the last one. */
static float bucket_scale(float least, float largest) {
    double scale = (LOGIT_BUCKETS - 1) / ((double)largest - (double)least);
    return scale < FLT_MAX ? (float)scale : FLT_MAX / LOGIT_BUCKETS;
}

static void add(LogitBucket *bucket, double weight, size_t count) {
    bucket->weight += weight;
    bucket->count += count;
}

void logit_order_read(LogitOrder *order, const float *logits, double temperature) {
    float least, best;
    double inverse = 1 / temperature;
    order->logits = logits;
    order->equal_bucket = LOGIT_BUCKETS;
    order->kernels->range(logits, order->n, &least, &best);
    order->kernels->weigh(logits, order->n, best, inverse < 1e30 ? (float)inverse : 1e30f, order->weights);
    order->kernels->assign(logits, order->n, best, bucket_scale(least, best), order->bucket_of);
    memset(order->buckets, 0, sizeof order->buckets);
    for (size_t i = 0; i < order->n; i++)
        add(&order->buckets[i % LOGIT_PARTS][order->bucket_of[i]], (double)order->weights[i], 1);
    for (size_t part = 1; part < LOGIT_PARTS; part++)
        for (size_t b = 0; b < LOGIT_BUCKETS; b++)
            add(&order->buckets[0][b], order->buckets[part][b].weight, order->buckets[part][b].count);
    order->total = 0;
    for (size_t b = 0; b < LOGIT_BUCKETS; b++)
        order->total += order->buckets[0][b].weight;
}

/* What is looked for: the first token before which, itself counted, there is more than `target` of a measure. */
typedef struct Search {
    bool by_weight; /* else by number */
    double target;
    size_t n_before; /* of the tokens that are still looked at */
    double weight_before;
} Search;

static bool is_beyond(const Search *search, double weight, size_t count) {
    return search->by_weight ? search->weight_before + weight > search->target
                             : (double)(search->n_before + count) > search->target;
}

static void skip(Search *search, double weight, size_t count) {
    search->weight_before += weight;
    search->n_before += count;
}

/* The bucket that holds the token; the last one with tokens where none is beyond the target. */
static size_t find_bucket(const LogitBucket *buckets, Search *search) {
    size_t last = LOGIT_BUCKETS - 1;
    while (buckets[last].count == 0)
        last--;
    for (size_t b = 0; b < last; b++) {
        if (is_beyond(search, buckets[b].weight, buckets[b].count))
            return b;
        skip(search, buckets[b].weight, buckets[b].count);
    }
    return last;
}

/* Fills order->ids with the tokens of a bucket, by id, and returns how many they are. */
static size_t gather(LogitOrder *order, uint16_t bucket) {
    const uint16_t *of = order->bucket_of;
    size_t n = 0;
    for (size_t i = 0; i < order->n; i += STRIDE) {
        size_t end = i + STRIDE < order->n ? i + STRIDE : order->n;
        uint16_t found = 0;
        for (size_t j = i; j < end; j++)
            found |= of[j] == bucket;
        for (size_t j = i; found && j < end; j++)
            if (of[j] == bucket)
                order->ids[n++] = (int32_t)j;
    }
    return n;
}

static Ranked ranked(const LogitOrder *order, int32_t id, const Search *search) {
    return (Ranked){id, (double)order->weights[id], search->n_before, search->weight_before};
}

typedef struct Entry {
    float logit;
    int32_t id;
} Entry;

static int fall(const void *left, const void *right) {
    const Entry *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static Ranked walk_sorted(const LogitOrder *order, size_t n, Search *search) {
    Entry sorted[SORTED_AT_MOST];
    for (size_t i = 0; i < n; i++)
        sorted[i] = (Entry){order->logits[order->ids[i]], order->ids[i]};
    qsort(sorted, n, sizeof *sorted, fall);
    size_t i = 0;
    for (; i + 1 < n && !is_beyond(search, (double)order->weights[sorted[i].id], 1); i++)
        skip(search, (double)order->weights[sorted[i].id], 1);
    return ranked(order, sorted[i].id, search);
}

/* Tokens with one logit, or as good as one: the place among them is a division. */
static Ranked walk_equal(const LogitOrder *order, size_t n, Search *search) {
    double weight = (double)order->weights[order->ids[0]], last = (double)(n - 1);
    double steps = search->by_weight ? (search->target - search->weight_before) / weight
                                     : search->target - (double)search->n_before;
    size_t i = steps < last ? (steps > 0 ? (size_t)steps : 0) : n - 1;
    skip(search, weight * (double)i, i);
    return ranked(order, order->ids[i], search);
}

/* Quickly, for there may be as many as there are tokens. */
static bool are_equal(const LogitOrder *order, size_t n) {
    size_t i = 1;
    while (i < n && order->logits[order->ids[i]] == order->logits[order->ids[0]])
        i++;
    return i == n;
}

static void find_range(const LogitOrder *order, size_t n, float *least, float *largest) {
    *least = *largest = order->logits[order->ids[0]];
    for (size_t i = 1; i < n; i++) {
        float logit = order->logits[order->ids[i]];
        *least = logit < *least ? logit : *least;
        *largest = logit > *largest ? logit : *largest;
    }
}

/* Cuts order->ids into ranges and keeps those of one; each time fewer are left, since the least and the largest go
 * apart. */
static size_t narrow(LogitOrder *order, size_t n, float least, float largest, Search *search) {
    float scale = bucket_scale(least, largest);
    LogitBucket *buckets = order->buckets[1];
    memset(buckets, 0, sizeof order->buckets[1]);
    for (size_t i = 0; i < n; i++)
        add(&buckets[logit_bucket(order->logits[order->ids[i]], largest, scale)], (double)order->weights[order->ids[i]],
            1);
    size_t chosen = find_bucket(buckets, search), kept = 0;
    for (size_t i = 0; i < n; i++)
        if (logit_bucket(order->logits[order->ids[i]], largest, scale) == chosen)
            order->ids[kept++] = order->ids[i];
    return kept;
}

/* Puts a bucket's tokens into order->ids and returns how many they are; *equal says that they all have one logit. A
 * vocabulary of equal logits is gathered once for all searches. */
static size_t gather_once(LogitOrder *order, size_t bucket, bool *equal) {
    *equal = bucket == order->equal_bucket;
    if (*equal)
        return order->n_equal;
    size_t n = gather(order, (uint16_t)bucket);
    *equal = are_equal(order, n);
    order->equal_bucket = *equal ? bucket : LOGIT_BUCKETS;
    order->n_equal = n;
    return n;
}

static Ranked find(LogitOrder *order, Search search) {
    bool equal;
    size_t n = gather_once(order, find_bucket(order->buckets[0], &search), &equal);
    while (!equal && n > SORTED_AT_MOST) {
        float least, largest;
        find_range(order, n, &least, &largest);
        if (largest - least < LEAST_DIFFERENCE)
            break;
        n = narrow(order, n, least, largest, &search);
        equal = are_equal(order, n);
    }
    return equal || n > SORTED_AT_MOST ? walk_equal(order, n, &search) : walk_sorted(order, n, &search);
}

Ranked logit_order_at(LogitOrder *order, size_t place) {
    return find(order, (Search){.target = (double)place});
}

Ranked logit_order_at_weight(LogitOrder *order, double weight) {
    return find(order, (Search){.by_weight = true, .target = weight});
}

double logit_order_sum(LogitOrder *order, size_t k) {
    if (k == order->n)
        return order->total;
    return k == 0 ? 0 : logit_order_at(order, k).weight_before;
}

size_t logit_order_count(const LogitOrder *order, double weight) {
    float least = (float)weight;
    uint32_t n = 0; /* as wide as the weights, for the compiler's vectors */
    for (size_t i = 0; i < order->n; i++)
        n += order->weights[i] >= least;
    return n;
}
