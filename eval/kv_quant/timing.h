/* How long the steps of a variant take, and plain loops that move the same bytes.
 *
 * A variant runs once to warm up and then as often as is asked for, the median counts; one that took longer than
 * PATIENCE_SECONDS the first time is not run again. Copies and plain loops run before each repetition, on the same
 * threads and pages, so that what else happens on the machine falls on all of them: shares are medians of the quotients
 * within repetitions. */
#ifndef STOWKV_QUANT_TIMING_H
#define STOWKV_QUANT_TIMING_H

#include "channel_int8/device.h"

#include <signal.h>

#define QUANT_MAX_REPETITIONS 100
#define PATIENCE_SECONDS      5.0

typedef struct QuantTime {
    double median, min, max; /* milliseconds */
} QuantTime;

typedef struct QuantTimes {
    QuantTime steps[CHANNEL_STEP_COUNT], total;
    size_t n_timed;
    bool warmed_up;        /* else the one run that was timed was the first */
    double copy_bandwidth; /* bytes a second that copies read and write */
    double copy_share;     /* what all steps move in a second, of that */
    double plain_share;    /* the time of plain loops (ChannelMove) over that of all steps; NaN: there are none */
    double plain_step_shares[CHANNEL_STEP_COUNT];
} QuantTimes;

typedef struct QuantTiming {
    ChannelDevice *device; /* the variant is loaded */
    const ChannelVariant *variant;
    double n_elements;
    size_t repetitions;
    const volatile sig_atomic_t *interrupted; /* NULL: never */
} QuantTiming;

/* Bytes that all steps move. */
double quant_bytes(const ChannelVariant *variant, double n_elements);

/* out->copy_bandwidth stays what it is where the device has no plain loops. ERROR_INTERRUPTED. */
int quant_time(const QuantTiming *timing, QuantTimes *out, Error *error);

int quant_interrupted(const volatile sig_atomic_t *interrupted, Error *error); /* ERROR_INTERRUPTED where it is set */

#endif
