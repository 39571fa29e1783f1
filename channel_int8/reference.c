/* See reference.h. */
#include "channel_int8/reference.h"

#include <float.h>
#include <math.h>

void channel_reference_largest(const float *keys, size_t n_tokens, size_t n_channels, double *largest) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < n_channels; d++) {
            double magnitude = fabs((double)keys[t * n_channels + d]);
            if (!isfinite(magnitude))
                largest[d] = NAN;
            else if (magnitude > largest[d]) /* not of NaN */
                largest[d] = magnitude;
        }
}

/* The double quotient rounded to float is the float quotient: 53 bits are more than twice 24 and one. */
void channel_reference_scales(const double *largest, size_t n_channels, float *scales) {
    for (size_t d = 0; d < n_channels; d++) {
        scales[d] = (float)(largest[d] / 127.0);
        if (isfinite(scales[d]) && isinf((float)(127.0 * (double)scales[d])))
            scales[d] = nextafterf(scales[d], 0.0f);
    }
}

void channel_reference_codes(const float *keys, const float *scales, size_t n_tokens, size_t n_channels,
                             int8_t *codes) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < n_channels; d++) {
            size_t i = t * n_channels + d;
            double quotient = scales[d] > 0 ? nearbyint((double)keys[i] / (double)scales[d]) : 0;
            codes[i] = (int8_t)fmax(-127, fmin(127, quotient));
        }
}

void channel_reference_decode(const int8_t *codes, const float *scales, size_t n_tokens, size_t n_channels,
                              float *decoded) {
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < n_channels; d++)
            decoded[t * n_channels + d] = (float)((double)codes[t * n_channels + d] * (double)scales[d]);
}
