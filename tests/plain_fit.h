/* Numbers fitted to what is added up of them (kvcache/codec/fit_values.h), by the definition, in double precision. */
#ifndef STOWKV_TESTS_PLAIN_FIT_H
#define STOWKV_TESTS_PLAIN_FIT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#define PLAIN_FIT_MOST 64 /* numbers */

typedef struct PlainFit {
    int codes[PLAIN_FIT_MOST];
    double scale, minimum;
    double margin; /* of codes, how near the nearest one came to another */
} PlainFit;

static inline double plain_mean(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

/* As literally as it goes. */
static inline PlainFit plain_fit(const double *x, size_t n, int bits) {
    PlainFit fit = {.margin = 1};
    double y[PLAIN_FIT_MOST], codes[PLAIN_FIT_MOST], low = INFINITY, high = -INFINITY, n_codes = 1 << bits;
    double mean = plain_mean(x, n);
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] - mean;
        low = fmin(low, y[i]);
        high = fmax(high, y[i]);
    }
    double step = (high - low) / n_codes, minimum = low + step / 2, product = 0, squares = 0, mean_code = 0;
    for (int round = 0; round < 2; round++) {
        double spread = 0;
        for (size_t i = 0; i < n; i++) {
            double place = (y[i] - minimum) / step;
            codes[i] = fmin(fmax(rint(place), 0), n_codes - 1);
            if (place > 0 && place < n_codes - 1)
                fit.margin = fmin(fit.margin, fabs(place - floor(place) - 0.5));
        }
        mean_code = plain_mean(codes, n);
        product = 0;
        for (size_t i = 0; i < n; i++) {
            product += y[i] * (codes[i] - mean_code);
            spread += (codes[i] - mean_code) * (codes[i] - mean_code);
        }
        step = product / spread;
        minimum = -step * mean_code;
    }
    for (size_t i = 0; i < n; i++) {
        fit.codes[i] = (int)codes[i];
        squares += y[i] * y[i];
    }
    fit.scale = squares / product;
    fit.minimum = mean - fit.scale * mean_code;
    return fit;
}

/* Whether codes can be compared: where one of them is as near to another, F32 may choose that. */
static inline bool plain_fit_is_clear(const PlainFit *fit) {
    return fit->margin > 1e-4;
}

static inline double plain_fit_number(const PlainFit *fit, size_t i) {
    return fit->minimum + fit->scale * fit->codes[i];
}

/* Half a unit in the last place of FP16. */
static inline double plain_half_error(double x) {
    return fmax(fabs(x) * 0x1p-11, 0x1p-25);
}

/* Whether number i was decoded as this fit has it, with scale and minimum in FP16. */
static inline bool plain_fit_agrees(const PlainFit *fit, size_t i, double decoded) {
    double bound = plain_half_error(fit->minimum) + 1e-5 * fit->scale + fit->codes[i] * plain_half_error(fit->scale);
    return fabs(decoded - plain_fit_number(fit, i)) <= bound;
}

#endif
