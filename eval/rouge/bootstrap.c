/* See bootstrap.h. */
#include "eval/rouge/bootstrap.h"

#include "base/random.h"
#include "eval/statistics.h"

#include <stdlib.h>

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
    sort_ascending(means, n_resamples);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    *out = (Interval){sum / (double)n, percentile(means, n_resamples, 0.025), percentile(means, n_resamples, 0.975)};
    free(means);
    return 0;
}
