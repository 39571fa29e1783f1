/* The harm of each codec in each layer, for keys and for values:
 *
 *     harm(layer, side, codec) = D(layer, side) * E(layer, side, codec) / E(layer, side, reference)
 *
 * E is the error that the codec makes in what the layer's attention adds to the residual stream (layer_errors.h): a
 * pass over the text for each codec. D is the divergence of the whole model from the full cache, measured with that one
 * layer's keys, or values, in the reference codec and all else in FP16: what an error in this layer means for what the
 * model says. Small errors add up: to second order divergence is a square of them, and those of different layers and
 * sides are not of one mind. docs/budget.md says how far that holds. */
#ifndef STOWKV_CALIBRATE_MEASURE_H
#define STOWKV_CALIBRATE_MEASURE_H

#include "eval/perplexity/windows.h"
#include "model/model.h"
#include "session/calibration.h"

#include <signal.h>

typedef struct CalibrationTask {
    Model *model;
    const int32_t *tokens; /* of the text */
    size_t n_tokens;
    int32_t bos;         /* replaces the first token of each window; -1: none does */
    PplSettings windows; /* the text's windows */
    KvPolicy preset;     /* quantized: its sink, window, group and rounding are those of all caches */
    const volatile sig_atomic_t *interrupted;
} CalibrationTask;

/* Codecs with harms: all but FP16 and binary for which no row of the model needs padding. `out` is open after success:
 * the harms, and what the task says of how they were measured. */
int calibration_measure(const CalibrationTask *task, Calibration *out, Error *error);

#endif
