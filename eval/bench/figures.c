/* See figures.h. */
#include "eval/bench/figures.h"

#include "eval/statistics.h"

#include <math.h>
#include <string.h>

BenchSummary bench_summarise(const double *rates, size_t n) {
    double sorted[BENCH_MAX_REPETITIONS];
    memcpy(sorted, rates, n * sizeof *sorted);
    sort_ascending(sorted, n);
    double median = percentile(sorted, n, 0.5), min = sorted[0], max = sorted[n - 1];
    return (BenchSummary){.median = median, .min = min, .max = max, .spread = (max - min) / median};
}

double bench_break_even(const double *depths, const double *full, const double *policy, size_t n) {
    size_t first = n; /* that the policy is faster at, with all behind it */
    while (first > 0 && policy[first - 1] > full[first - 1])
        first--;
    if (first == n)
        return NAN;
    if (first == 0)
        return depths[0];
    double before = 1 / policy[first - 1] - 1 / full[first - 1]; /* seconds that a token takes longer: >= 0 … */
    double after = 1 / policy[first] - 1 / full[first];          /* … and < 0 */
    return depths[first - 1] + (depths[first] - depths[first - 1]) * before / (before - after);
}
