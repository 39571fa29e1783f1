/* How sure a mean over samples is: the percentile bootstrap. For a difference between two runs over the same samples,
 * the values are the differences sample by sample (the paired bootstrap).
 *
 *     Interval interval;
 *     if (bootstrap_mean(differences, n, 10000, seed, &interval, &error) < 0) …
 *     printf("%.4f [%.4f, %.4f]\n", interval.mean, interval.low, interval.high);
 */
#ifndef STOWKV_BOOTSTRAP_H
#define STOWKV_BOOTSTRAP_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct Interval {
    double mean, low, high; /* 95 %: the percentiles 2.5 and 97.5 */
} Interval;

/* Draws n of the n > 0 values with replacement, n_resamples > 0 times, in order, each index by random_below() of a
 * state that starts as the seed; the percentiles of the means are interpolated linearly, as numpy.percentile does. */
int bootstrap_mean(const double *values, size_t n, size_t n_resamples, uint64_t seed, Interval *out, Error *error);

#endif
