/* See bootstrap.h. */
#include "eval/bootstrap.h"

#include "model/base/random.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double fraction) {
    double position = fraction * (double)(n - 1);
    size_t below = (size_t)position;
    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (position - (double)below) * (sorted[below + 1] - sorted[below]);
}

int bootstrap_mean(const double *values, size_t n, size_t n_resamples, uint64_t seed, Interval *out, Error *error) {
    double *means = calloc(n_resamples, sizeof *means), sum = 0;
    if (means == NULL)
        return error_memory(error, "the bootstrap", n_resamples * sizeof *means);
    uint64_t state = seed;
    for (size_t i = 0; i < n_resamples; i++) {
        double drawn = 0;
        for (size_t j = 0; j < n; j++)
            drawn += values[random_below(&state, n)];
        means[i] = drawn / (double)n;
    }
    qsort(means, n_resamples, sizeof *means, ascending);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    *out = (Interval){sum / (double)n, percentile(means, n_resamples, 0.025), percentile(means, n_resamples, 0.975)};
    free(means);
    return 0;
}
