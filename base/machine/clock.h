/* Time for measurements. */
#ifndef STOWKV_CLOCK_H
#define STOWKV_CLOCK_H

#include <time.h>

/* Seconds of a clock that only goes forward; its zero means nothing. */
static inline double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
