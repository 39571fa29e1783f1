/* Overflow-safe arithmetic for sizes that come from files: true, and *out set, where the result fits. */
#ifndef STOWKV_CHECKED_H
#define STOWKV_CHECKED_H

#include "base/host_device.h"

#include <stdbool.h>
#include <stddef.h>

static inline bool checked_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

static HOST_DEVICE inline bool is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

/* a rounded up to a multiple of `alignment` (a power of two). */
static inline bool checked_align(size_t a, size_t alignment, size_t *out) {
    size_t padded;
    if (!checked_add(a, alignment - 1, &padded))
        return false;
    *out = padded & ~(alignment - 1);
    return true;
}

/* n rounded up to a multiple of `step`, which need be no power of two; for sizes that are far from overflowing. */
static HOST_DEVICE inline size_t round_up(size_t n, size_t step) {
    return (n + step - 1) / step * step;
}

static HOST_DEVICE inline size_t divide_up(size_t a, size_t b) {
    return a / b + (a % b != 0);
}

static HOST_DEVICE inline size_t at_most(size_t n, size_t limit) {
    return n < limit ? n : limit;
}

static HOST_DEVICE inline size_t at_least(size_t n, size_t limit) {
    return n > limit ? n : limit;
}

/* Whether [offset, offset + size) lies within [0, total). */
static inline bool range_within(size_t offset, size_t size, size_t total) {
    return offset <= total && size <= total - offset;
}

#endif
