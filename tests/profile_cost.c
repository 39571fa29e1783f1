/* What the profiler costs: processor time of a token with it and without it, in turn, at the same depths of one model.
 *
 *     build/tests/profile_cost CHECKPOINT [TOKENS]
 *
 * With one thread, whose own time it takes, so that other programs on the machine do not count: what they do to its
 * caches and clock is in both of a pair, and the median of the pairs' ratios is told with their quartiles. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "eval/profile/timed_backend.h"
#include "eval/statistics.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N_TOKENS = 200, MOST_TOKENS = 4096, WARM_UP = 8 };

typedef struct Side {
    Backend *backend;
    Context context;
} Side;

static double thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop(const Error *error) {
    fprintf(stderr, "profile_cost: error: %s\n", error->message);
    exit(EXIT_FAILURE);
}

static double step(Model *model, Side *side, int32_t token) {
    Error error = {0};
    model->backend = side->backend;
    double begin = thread_seconds();
    if (forward(&side->context, &token, 1, LOGITS_LAST, &error) < 0)
        stop(&error);
    return thread_seconds() - begin;
}

/* Each of a pair goes first as often as the other. */
static void compare(Model *model, Side *plain, Side *timed, size_t n) {
    static double ratios[MOST_TOKENS], seconds[MOST_TOKENS];
    for (size_t t = 0; t < WARM_UP + n; t++) {
        int32_t token = (int32_t)((7 * t * t + 13 * t + 11) % model->checkpoint.config.n_vocab);
        Side *first = t % 2 == 0 ? plain : timed, *second = t % 2 == 0 ? timed : plain;
        double a = step(model, first, token), b = step(model, second, token);
        if (t < WARM_UP)
            continue;
        seconds[t - WARM_UP] = first == plain ? a : b;
        ratios[t - WARM_UP] = first == plain ? b / a : a / b;
    }
    sort_ascending(ratios, n);
    sort_ascending(seconds, n);
    printf("%zu pairs of tokens, %.3f ms each: with the profiler %+.2f %%, quartiles %+.2f and %+.2f %%\n", n,
           1e3 * percentile(seconds, n, 0.5), 100 * (percentile(ratios, n, 0.5) - 1),
           100 * (percentile(ratios, n, 0.25) - 1), 100 * (percentile(ratios, n, 0.75) - 1));
}

int main(int argc, char **argv) {
    Error error = {0};
    Backend *backend;
    Model model;
    Profile profile = {0};
    Side plain, timed;
    KvPolicy policy = kv_policy_full();
    size_t n = argc == 3 ? strtoul(argv[2], NULL, 10) : N_TOKENS;
    if (argc < 2 || argc > 3 || n == 0 || n > MOST_TOKENS) {
        fprintf(stderr, "Usage: profile_cost CHECKPOINT [TOKENS]\n");
        return 2;
    }
    if (cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error) < 0 ||
        model_open(&model, argv[1], backend, &error) < 0)
        stop(&error);
    plain.backend = backend;
    if (timed_backend_open(&timed.backend, backend, &profile, &error) < 0 ||
        context_open(&plain.context, &model, &policy, WARM_UP + n, 0, &error) < 0 ||
        context_open(&timed.context, &model, &policy, WARM_UP + n, 0, &error) < 0)
        stop(&error);
    profile_start(&profile);
    compare(&model, &plain, &timed, n);
    context_close(&plain.context);
    context_close(&timed.context);
    model.backend = timed_backend_close(timed.backend);
    model_close(&model);
    profile_free(&profile);
    return 0;
}
