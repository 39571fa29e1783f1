/* How fast this machine's threads read memory: the roof over everything that reads weights and a cache once a token.
 *
 *     Bandwidth bandwidth;
 *     if (bandwidth_measure(2, SIMD_AVX512, &bandwidth, &error) < 0) …
 *     printf("%.1f GB/s\n", bandwidth.all_threads / 1e9);
 *
 * The method: a buffer of at least four times the last-level caches that the process can use (from sysfs; at least
 * 256 MiB, at most a quarter of the memory that is free) is summed as F32 by all threads, in pieces of 1 MiB that
 * threads take as they become free, in huge pages and with prefetch: without these it reads 10 to 25 % less. One pass
 * warms up, the next ones are timed, four at least and as many as begin within 0.1 s; the best is the roof, as in
 * STREAM. The sums are checked, so every byte was read. Where machines share memory it wanders within seconds: measure
 * it again and again beside what it is compared with. */
#ifndef STOWKV_BANDWIDTH_H
#define STOWKV_BANDWIDTH_H

#include "base/error.h"
#include "base/simd/levels.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct Bandwidth {
    double all_threads; /* bytes a second, the best pass */
    double one_thread;
    bool by_device; /* not by threads: all_threads is what a device's copies read and write, and nothing else is known
                       but the sizes (model/backend.h); bandwidth_measure() leaves it false */
    int n_threads;
    size_t buffer_bytes;
    size_t cache_bytes; /* of the last level, all that the process can use; 0: not known */
} Bandwidth;

int bandwidth_measure(int n_threads, SimdLevel level, Bandwidth *out, Error *error);

#endif
