/* What a benchmark makes of its timings: medians, spreads, and where one curve overtakes another. Pure arithmetic.
 *
 *     BenchSummary s = bench_summarise(rates, 3);                   // {.median = 35.8, .spread = 0.02, …}
 *     double depth = bench_break_even(depths, full, int8, n);       // NAN: never within the measured depths
 */
#ifndef STOWKV_BENCH_FIGURES_H
#define STOWKV_BENCH_FIGURES_H

#include <stddef.h>

typedef struct BenchSummary {
    double median, min, max;
    double spread; /* (max - min) / median */
} BenchSummary;

#define BENCH_MAX_REPETITIONS 1000

/* n from 1 to BENCH_MAX_REPETITIONS. */
BenchSummary bench_summarise(const double *rates, size_t n);

/* The depth from which on a policy is faster than the full cache, at every measured depth behind it: the first measured
 * one where it is faster from there on, NAN where it is not faster at the last. Between two measured depths the times
 * of a token are taken as straight lines, which they are where each further token of context costs the same. */
double bench_break_even(const double *depths, // (n) ascending
                        const double *full,   // (n) tokens a second of the full cache
                        const double *policy, // (n) tokens a second
                        size_t n);

#endif
