/* Calls of memcmp, by which names and texts are compared: work that does not depend on a clock. For a test that is
 * linked with WRAP memcmp; include it once. */
#ifndef STOWKV_COMPARED_BYTES_H
#define STOWKV_COMPARED_BYTES_H

#include <stddef.h>

static size_t n_comparisons;

int __real_memcmp(const void *a, const void *b, size_t n);
int __wrap_memcmp(const void *a, const void *b, size_t n);

int __wrap_memcmp(const void *a, const void *b, size_t n) {
    n_comparisons++;
    return __real_memcmp(a, b, n);
}

#endif
