/* Figures of a series of numbers, one for each token: mean with its standard error, percentiles. */
#ifndef STOWKV_STATISTICS_H
#define STOWKV_STATISTICS_H

#include <stddef.h>

typedef struct MeanError {
    double mean, error; /* the standard error of the mean; 0 for fewer than two numbers */
} MeanError;

/* error = sqrt((E[x^2] - E[x]^2) / (n - 1)), as llama.cpp's perplexity has it. */
MeanError mean_error(const double *x, size_t n);

/* The same of a[i] - b[i]: paired, so that what both share cancels. */
MeanError mean_error_paired(const double *a, const double *b, size_t n);

double root_mean_square(const double *x, size_t n);

/* Linear between the two nearest ranks, as numpy's default and llama.cpp's. */
double percentile(const double *sorted,    // (n) ascending, n > 0
                  size_t n, double share); // in [0, 1]

void sort_ascending(double *x, size_t n);

#endif
