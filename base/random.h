/* Random numbers that are the same everywhere: SplitMix64 (Steele, Lea & Flood 2014). Any seed is a good one. */
#ifndef STOWKV_RANDOM_H
#define STOWKV_RANDOM_H

#include <stdint.h>

/* The next 64 bits; the state starts as the seed. */
static inline uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Uniform in [0, 1): the upper 53 bits. */
static inline double random_uniform(uint64_t *state) {
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

/* Uniform in [0, n), n > 0. The smallest 2^64 mod n values are drawn again, so that all remainders are equally likely.
 */
static inline uint64_t random_below(uint64_t *state, uint64_t n) {
    uint64_t unfair = -n % n, x;
    do
        x = random_next(state);
    while (x < unfair);
    return x % n;
}

#endif
