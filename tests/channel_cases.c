/* See channel_cases.h. */
#include "tests/channel_cases.h"

#include "base/half.h"
#include "base/random.h"
#include "channel_int8/code.h"
#include "channel_int8/reference.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* One by one, fewer than a vector has, not a multiple of anything, rows that are longer than a strip, and whole lines
 * of a cache or not. */
static const struct {
    size_t n_tokens, n_channels;
} SHAPES[] = {{1, 1}, {3, 5}, {2, 16}, {7, 128}, {33, 129}, {1025, 63}, {64, 256}, {9, 1100}, {150, 1152}, {5, 9001}};

/* ---- Channels */

typedef float Element(uint64_t *random, size_t t);

static float uniform(uint64_t *random, size_t t) {
    (void)t;
    return (float)(2 * random_uniform(random) - 1);
}

/* The scale is 1: halves are ties. */
static float tie(uint64_t *random, size_t t) {
    float x = (float)random_below(random, 254) - 126.5f;
    return t == 0 ? 127.0f : x;
}

/* Under a scale that is no power of two, halves times the scale, and the floats beside them. */
static float near_tie(uint64_t *random, size_t t) {
    float largest = 1.7f, scale = largest / 127.0f;
    float x = ((float)random_below(random, 253) - 126.5f) * scale;
    static const float TOWARDS[] = {-INFINITY, 0, INFINITY};
    size_t step = (size_t)random_below(random, 3);
    return t == 0 ? largest : step == 1 ? x : nextafterf(x, TOWARDS[step]);
}

static float zero(uint64_t *random, size_t t) {
    (void)random;
    return t % 2 == 0 ? 0.0f : -0.0f;
}

/* A few units of the least subnormal: the scale is rounded a lot. */
static float subnormal(uint64_t *random, size_t t) {
    (void)t;
    return ((float)random_below(random, 381) - 190) * 0x1p-149f;
}

static float no_scale(uint64_t *random, size_t t) { /* less than 127 / 2 of them: it is 0 */
    (void)t;
    return (float)random_below(random, 60) * 0x1p-149f;
}

static float tiny(uint64_t *random, size_t t) { /* about where 1 / scale overflows */
    return uniform(random, t) * 0x1p-120f;
}

static float largest_float(uint64_t *random, size_t t) {
    return t == 0 ? -FLT_MAX : uniform(random, t) * FLT_MAX;
}

static float with_nan(uint64_t *random, size_t t) {
    return t == 0 ? -NAN : uniform(random, t);
}

static float with_infinity(uint64_t *random, size_t t) {
    return t == 0 ? -INFINITY : uniform(random, t);
}

static Element *const ELEMENTS[] = {uniform,   tie,      near_tie, zero,          uniform,  near_tie,
                                    subnormal, no_scale, tiny,     largest_float, with_nan, with_infinity};

static float *make_keys(size_t n_tokens, size_t n_channels) {
    float *keys = malloc(n_tokens * n_channels * sizeof *keys);
    assert_non_null(keys);
    uint64_t random = n_tokens * 10007 + n_channels;
    size_t first = n_channels == 1 ? 0 : (size_t)random_below(&random, COUNT(ELEMENTS));
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t d = 0; d < n_channels; d++)
            keys[t * n_channels + d] = ELEMENTS[(first + d) % COUNT(ELEMENTS)](&random, (t + d) % n_tokens);
    return keys;
}

/* ---- What must come out */

ChannelExpected channel_expect(const float *keys, size_t n_tokens, size_t n_channels, bool half_keys) {
    size_t n = n_tokens * n_channels;
    ChannelExpected e = {.n_tokens = n_tokens, .n_channels = n_channels, .half_keys = half_keys};
    double *largest = calloc(n_channels, sizeof *largest);
    e.keys = malloc(n * sizeof *e.keys);
    e.scales = malloc(n_channels * sizeof *e.scales);
    e.decoded = malloc(n * sizeof *e.decoded);
    e.codes = malloc(n);
    assert_true(largest != NULL && e.keys != NULL && e.scales != NULL && e.decoded != NULL && e.codes != NULL);
    for (size_t i = 0; i < n; i++)
        e.keys[i] = half_keys ? half_to_float(half_from_float(keys[i])) : keys[i];
    channel_reference_largest(e.keys, n_tokens, n_channels, largest);
    channel_reference_scales(largest, n_channels, e.scales);
    channel_reference_codes(e.keys, e.scales, n_tokens, n_channels, e.codes);
    channel_reference_decode(e.codes, e.scales, n_tokens, n_channels, e.decoded);
    for (size_t i = 0; half_keys && i < n; i++)
        e.decoded[i] = half_to_float(half_from_float(e.decoded[i]));
    free(largest);
    return e;
}

void channel_expected_free(ChannelExpected *e) {
    free(e->keys);
    free(e->scales);
    free(e->decoded);
    free(e->codes);
}

static bool same(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

void channel_check(const ChannelExpected *e, const char *name, const float *scales, const int8_t *codes,
                   const float *decoded) {
    for (size_t d = 0; d < e->n_channels; d++)
        if (!same(scales[d], e->scales[d]))
            fail_msg("%s, %zux%zu: channel %zu has scale %a, not %a", name, e->n_tokens, e->n_channels, d,
                     (double)scales[d], (double)e->scales[d]);
    for (size_t i = 0; i < e->n_tokens * e->n_channels; i++)
        if (codes[i] != e->codes[i] || !same(decoded[i], e->decoded[i]))
            fail_msg("%s, %zux%zu: token %zu, channel %zu: %a of scale %a has code %d (%a), not %d (%a)", name,
                     e->n_tokens, e->n_channels, i / e->n_channels, i % e->n_channels, (double)e->keys[i],
                     (double)e->scales[i % e->n_channels], codes[i], (double)decoded[i], e->codes[i],
                     (double)e->decoded[i]);
}

/* Of what a device has loaded and run. */
static void compare(ChannelDevice *device, const ChannelVariant *variant, const ChannelMatrix *m) {
    size_t n = m->n_tokens * m->n_channels, half = m->n_tokens / 2;
    Error error = {0};
    ChannelExpected e = channel_expect(m->keys, m->n_tokens, m->n_channels, variant->half_keys);
    float *scales = malloc(m->n_channels * sizeof *scales), *decoded = malloc(n * sizeof *decoded);
    int8_t *codes = malloc(n);
    assert_true(scales != NULL && decoded != NULL && codes != NULL);
    assert_int_equal(device->ops->read_scales(device, scales, &error), 0);
    assert_int_equal(device->ops->read_codes(device, 0, m->n_tokens, codes, &error), 0);
    assert_int_equal(device->ops->read_decoded(device, 0, half, decoded, &error),
                     0); /* in two parts, as a report does */
    assert_int_equal(
        device->ops->read_decoded(device, half, m->n_tokens - half, decoded + half * m->n_channels, &error), 0);
    channel_check(&e, variant->name, scales, codes, decoded);
    free(scales);
    free(decoded);
    free(codes);
    channel_expected_free(&e);
}

/* Every step twice, as a benchmark does. */
static void run_steps(ChannelDevice *device, const ChannelVariant *variant) {
    Error error = {0};
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++) {
        double ms = -1;
        if (variant->bytes[step] > 0) {
            assert_int_equal(device->ops->run(device, step, 2, &ms, &error), 0);
            assert_true(ms >= 0);
        }
    }
}

void check_channel_variants(ChannelDevice *device) {
    Error error = {0};
    for (size_t i = 0; i < COUNT(SHAPES); i++) {
        ChannelMatrix m = {NULL, SHAPES[i].n_tokens, SHAPES[i].n_channels};
        float *keys = make_keys(m.n_tokens, m.n_channels);
        m.keys = keys;
        for (size_t v = 0; v < device->n_variants; v++) {
            assert_int_equal(device->ops->load(device, &device->variants[v], &m, &error), 0);
            run_steps(device, &device->variants[v]);
            compare(device, &device->variants[v], &m);
            device->ops->unload(device);
        }
        free(keys);
    }
}
