/* See rests.h. */
#define _GNU_SOURCE
#include "base/machine/rests.h"

#include "base/machine/clock.h"

#include <stdbool.h>
#include <sys/resource.h>

#define SHARE       0.25 /* of the time; one process of the same priority takes half of a CPU, a niced one a hundredth */
#define REST_FACTOR 40   /* of rest to what was lost: trying again costs a fortieth */

static double seconds(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

ThreadUsage thread_usage(void) {
    struct rusage usage = {0};
    getrusage(RUSAGE_THREAD, &usage);
    return (ThreadUsage){clock_seconds(), seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_nivcsw,
                         usage.ru_nvcsw};
}

static double at_most_longest(double rest) {
    return rest < REST_MAX_SECONDS ? rest : REST_MAX_SECONDS;
}

static double rest_seconds(double lost) {
    return at_most_longest(lost * REST_FACTOR);
}

double rest_again(double rest, double last, double elapsed) {
    bool longer = rest > 0 && elapsed < last && rest < 2 * last;
    return longer ? at_most_longest(2 * last) : rest;
}

double rest_of_late(double late, double elapsed, int n_threads) {
    double lost = late * (n_threads - 1); /* by those that waited */
    return lost > elapsed * SHARE ? rest_seconds(late) : 0;
}

double rest_of_lost(double lost, double elapsed) {
    return lost > elapsed * SHARE ? rest_seconds(lost) : 0;
}
