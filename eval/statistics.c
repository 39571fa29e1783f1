/* See statistics.h. */
#include "eval/statistics.h"

#include <math.h>
#include <stdlib.h>

static double difference(const double *a, const double *b, size_t i) {
    return b == NULL ? a[i] : a[i] - b[i];
}

/* In two passes: the difference of two large means would lose the digits of a small error. */
MeanError mean_error_paired(const double *a, const double *b, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += difference(a, b, i);
    double mean = n > 0 ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        squares += (difference(a, b, i) - mean) * (difference(a, b, i) - mean);
    return (MeanError){mean, n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0};
}

MeanError mean_error(const double *x, size_t n) {
    return mean_error_paired(x, NULL, n);
}

double root_mean_square(const double *x, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    return n > 0 ? sqrt(squares / (double)n) : 0;
}

double percentile(const double *sorted, size_t n, double share) {
    double rank = share * (double)(n - 1);
    size_t below = (size_t)rank, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (rank - (double)below) * (sorted[above] - sorted[below]);
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void sort_ascending(double *x, size_t n) {
    qsort(x, n, sizeof *x, compare_numbers);
}
