/* Scale, minimum and codes of a block of values so that what attention adds up of them is right: the arithmetic of
 * kv_codec_encode_fitted(), and of kv_codec_encode_aware() for a channel of keys, which a device's kernels may share.
 * Of a block's numbers x = mean + y
 *
 *     the range is cut into 2^bits equal parts, and a code stands for the middle of its part
 *     twice: all y get codes, and the line through (code, y) with the least squared error says what they stand for
 *     codes are those last chosen; scale = sum of y^2 / sum of y * code
 *
 * The line alone would decode all numbers nearer to their mean than they are: what is off the same way in all tokens
 * does not cancel out where attention takes their mean. With this scale decoded numbers rise with true ones at a slope
 * of one. Sums go over eight columns, then over those, so that all give the same bits. */
#ifndef STOWKV_CODEC_FIT_VALUES_H
#define STOWKV_CODEC_FIT_VALUES_H

#include "kvcache/codec/fit.h"

#define KV_FIT_ROUNDS  2
#define KV_FIT_COLUMNS 8

/* Numbers of a block about their mean, as minimum + step * code. */
typedef struct KvLine {
    float step, minimum;
} KvLine;

typedef struct KvColumns {
    float sum[KV_FIT_COLUMNS];
} KvColumns;

static HOST_DEVICE inline float kv_sum_columns(const KvColumns *columns) {
    float sum = columns->sum[0];
    for (size_t j = 1; j < KV_FIT_COLUMNS; j++)
        sum += columns->sum[j];
    return sum;
}

/* The mean of numbers, whose count is a multiple of KV_FIT_COLUMNS. */
static HOST_DEVICE inline float kv_fit_mean(const float *x, size_t n) {
    KvColumns sums = {{0}};
    for (size_t i = 0; i < n; i += KV_FIT_COLUMNS)
        for (size_t j = 0; j < KV_FIT_COLUMNS; j++)
            sums.sum[j] += x[i + j];
    return kv_sum_columns(&sums) / (float)n;
}

static HOST_DEVICE inline float kv_fit_squares(const float *x, size_t n, float mean) {
    KvColumns sums = {{0}};
    for (size_t i = 0; i < n; i += KV_FIT_COLUMNS)
        for (size_t j = 0; j < KV_FIT_COLUMNS; j++)
            sums.sum[j] += (x[i + j] - mean) * (x[i + j] - mean);
    return kv_sum_columns(&sums);
}

static HOST_DEVICE inline float kv_fit_code(float y, KvLine line, float inverse, float highest) {
    return round_even(clamp((y - line.minimum) * inverse, 0.0f, highest));
}

/* What follows from the codes that numbers get by a line: the better line, and the sum of y * code. */
static HOST_DEVICE inline float kv_fit_round(const float *x, size_t n, float mean, float highest, KvLine *line,
                                             float *mean_code) {
    KvColumns codes = {{0}}, squares = {{0}}, products = {{0}};
    float inverse = 1.0f / line->step;
    for (size_t i = 0; i < n; i += KV_FIT_COLUMNS)
        for (size_t j = 0; j < KV_FIT_COLUMNS; j++) {
            float y = x[i + j] - mean, code = kv_fit_code(y, *line, inverse, highest);
            codes.sum[j] += code;
            squares.sum[j] += code * code;
            products.sum[j] += y * code;
        }
    float sum = kv_sum_columns(&codes), product = kv_sum_columns(&products);
    *mean_code = sum / (float)n;
    line->step = product / (kv_sum_columns(&squares) - sum * *mean_code);
    line->minimum = -line->step * *mean_code;
    return product;
}

/* Whether FP16 says the line closely enough for its steps. */
static HOST_DEVICE inline bool kv_fit_store(float mean, KvLine line, float highest, KvFit *fit) {
    float minimum = mean + line.minimum, slack = line.step / 8;
    fit->minimum = half_saturated(minimum);
    fit->scale = half_saturated(line.step);
    return fabsf(half_to_float(fit->minimum) - minimum) <= slack &&
           fabsf(half_to_float(fit->scale) - line.step) * highest <= slack;
}

/* Fits n numbers between low and high. False where the range is to be taken instead (kv_fit_range()): n is no multiple
 * of KV_FIT_COLUMNS, numbers are not finite, or too much alike, beside their mean, for FP16 to say how they differ. */
static HOST_DEVICE inline bool kv_fit_values(const float *x, size_t n, int bits, float low, float high, KvFit *fit,
                                             uint8_t *codes) { // (n) out
    if (n % KV_FIT_COLUMNS != 0)
        return false;
    float highest = (float)((1 << bits) - 1), mean = kv_fit_mean(x, n), product = 0.0f, mean_code = 0.0f;
    KvLine line = {(high - low) / (highest + 1.0f), 0.0f}, last = line;
    line.minimum = low - mean + line.step / 2;
    for (int round = 0; round < KV_FIT_ROUNDS; round++) {
        last = line;
        product = kv_fit_round(x, n, mean, highest, &line, &mean_code);
    }
    float inverse = 1.0f / last.step;
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint8_t)(int)kv_fit_code(x[i] - mean, last, inverse, highest);
    line.step = kv_fit_squares(x, n, mean) / product;
    line.minimum = -line.step * mean_code;
    return product > 0 && kv_fit_store(mean, line, highest, fit);
}

#endif
