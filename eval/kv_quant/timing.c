/* See timing.h. */
#include "eval/kv_quant/timing.h"

#include "base/checked.h"
#include "eval/statistics.h"

#include <math.h>
#include <stdlib.h>

#define SHORTEST_MS 2.0 /* of a timed run: a step that takes less is run several times */
#define MOST_TIMES  1000

static QuantTime summarise(double *ms, size_t n) {
    sort_ascending(ms, n);
    return (QuantTime){percentile(ms, n, 0.5), ms[0], ms[n - 1]};
}

/* Milliseconds of repetitions, of each step and of all of them; what copies and plain loops did just before, in bytes a
 * second. */
typedef struct Timings {
    double steps[CHANNEL_STEP_COUNT][QUANT_MAX_REPETITIONS], total[QUANT_MAX_REPETITIONS];
    double moves[CHANNEL_MOVE_COUNT][QUANT_MAX_REPETITIONS];
    size_t n;
} Timings;

/* Plain loops behind one another, each n_times[step] times, before the steps, which find of each other's what the
 * caches keep. */
static int run_moves(ChannelDevice *device, const size_t *n_times, Timings *timings, Error *error) {
    for (ChannelMove move = 0; move < CHANNEL_MOVE_COUNT; move++) {
        size_t times = n_times[move == CHANNEL_MOVE_COPY ? CHANNEL_CODES : move];
        if (device->ops->measure_move(device, move, times, &timings->moves[move][timings->n], error) < 0)
            return error->code;
    }
    return 0;
}

/* Runs plain loops and all steps, each n_times[step] times, as repetition number timings->n, which it does not raise.
 */
static int run_steps(const QuantTiming *timing, const size_t *n_times, Timings *timings, Error *error) {
    ChannelDevice *device = timing->device;
    timings->total[timings->n] = 0;
    if (device->ops->measure_move != NULL && run_moves(device, n_times, timings, error) < 0)
        return error->code;
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++) {
        double *ms = &timings->steps[step][timings->n];
        *ms = 0;
        if (timing->variant->bytes[step] > 0 && device->ops->run(device, step, n_times[step], ms, error) < 0)
            return error->code;
        timings->total[timings->n] += *ms;
    }
    return 0;
}

static double median(double *x, size_t n) {
    sort_ascending(x, n);
    return percentile(x, n, 0.5);
}

double quant_bytes(const ChannelVariant *variant, double n_elements) {
    double bytes = 0;
    for (size_t step = 0; step < CHANNEL_STEP_COUNT; step++)
        bytes += variant->bytes[step];
    return bytes * n_elements;
}

/* The quotient, or NaN where there was nothing to move. */
static double per(double bytes, double bytes_per_second) {
    return bytes_per_second > 0 ? bytes / bytes_per_second : (double)NAN;
}

static void compare_with_moves(const QuantTiming *timing, Timings *timings, QuantTimes *out) {
    double plain[QUANT_MAX_REPETITIONS] = {0}, share[QUANT_MAX_REPETITIONS];
    size_t n = timings->n;
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++) {
        for (size_t i = 0; i < n; i++) {
            double ms = 1e3 * per(timing->variant->bytes[step] * timing->n_elements, timings->moves[step][i]);
            share[i] = ms / timings->steps[step][i];
            plain[i] += ms;
        }
        out->plain_step_shares[step] = median(share, n);
    }
    for (size_t i = 0; i < n; i++) {
        double bytes = quant_bytes(timing->variant, timing->n_elements);
        plain[i] /= timings->total[i];
        share[i] = 1e3 * per(bytes, timings->moves[CHANNEL_MOVE_COPY][i]) / timings->total[i];
    }
    out->plain_share = median(plain, n);
    out->copy_share = median(share, n);
    out->copy_bandwidth = median(timings->moves[CHANNEL_MOVE_COPY], n);
}

/* Of a device whose copies were measured before, and that has no plain loops. */
static void compare_with_copies(const QuantTiming *timing, QuantTimes *out) {
    double bytes = quant_bytes(timing->variant, timing->n_elements);
    out->copy_share = 1e3 * per(bytes, out->copy_bandwidth) / out->total.median;
    out->plain_share = (double)NAN;
    for (ChannelStep step = 0; step < CHANNEL_STEP_COUNT; step++)
        out->plain_step_shares[step] = (double)NAN;
}

/* Medians of what was timed. */
static void summarise_all(const QuantTiming *timing, Timings *timings, QuantTimes *out) {
    bool has_moves = timing->device->ops->measure_move != NULL;
    out->n_timed = timings->n;
    if (has_moves)
        compare_with_moves(timing, timings, out); /* before anything is sorted */
    for (size_t step = 0; step < CHANNEL_STEP_COUNT; step++)
        out->steps[step] = summarise(timings->steps[step], timings->n);
    out->total = summarise(timings->total, timings->n);
    if (!has_moves)
        compare_with_copies(timing, out);
}

int quant_interrupted(const volatile sig_atomic_t *interrupted, Error *error) {
    return interrupted != NULL && *interrupted ? error_set(error, ERROR_INTERRUPTED, "interrupted") : 0;
}

/* Once to warm up, and how often a step has to run to be timed; then the repetitions. */
static int time_steps(const QuantTiming *timing, Timings *timings, QuantTimes *out, Error *error) {
    size_t n_times[CHANNEL_STEP_COUNT] = {1, 1, 1};
    timings->n = 0;
    if (run_steps(timing, n_times, timings, error) < 0)
        return error->code;
    out->warmed_up = timings->total[0] < PATIENCE_SECONDS * 1e3;
    for (size_t step = 0; step < CHANNEL_STEP_COUNT; step++)
        n_times[step] = at_most((size_t)(SHORTEST_MS / (timings->steps[step][0] + 1e-3)) + 1, MOST_TIMES);
    for (timings->n = 0; out->warmed_up && timings->n < timing->repetitions; timings->n++)
        if (quant_interrupted(timing->interrupted, error) < 0 || run_steps(timing, n_times, timings, error) < 0)
            return error->code;
    timings->n = at_least(timings->n, 1);
    summarise_all(timing, timings, out);
    return 0;
}

int quant_time(const QuantTiming *timing, QuantTimes *out, Error *error) {
    Timings *timings = malloc(sizeof *timings);
    if (timings == NULL)
        return error_memory(error, "timings", sizeof *timings);
    int status = time_steps(timing, timings, out, error);
    free(timings);
    return status;
}
