/* Calibrations: files that say how much harm each codec does in each layer of a model, as build/calibrate has measured
 * it on a text. JSON, some kilobytes:
 *
 *     {"format": "stowkv calibration", "version": 1, "model": name, "fingerprint": 16 hex digits, "text": name,
 *      "context": N, "chunks": N, "sink": N, "window": N, "kv_block_size": N, "kv_rounding": name, "n_layers": N,
 *      "harms": [{"side": "k" or "v", "codec": name, "rotated": bool, "nats": [a number for each layer]}, …]}
 *
 *     Calibration c;
 *     if (calibration_find(&c, path, &checkpoint, checkpoint_path, &error) < 0) …
 *     calibration_free(&c);
 */
#ifndef STOWKV_CALIBRATION_H
#define STOWKV_CALIBRATION_H

#include "checkpoints/checkpoint.h"
#include "kvcache/budget.h"

#include <cjson/cJSON.h>

#define CALIBRATION_NAME 128 /* bytes of a name that is kept */

typedef struct Calibration {
    uint64_t fingerprint;
    char model[CALIBRATION_NAME], text[CALIBRATION_NAME]; /* for people: without folders */
    size_t context, chunks, sink, window, group;
    KvRounding rounding;
    KvHarms harms;
} Calibration;

/* Of a model, whatever its weights are quantized to: a hash of its shape and of the gains of its norms, which stay as
 * they are. */
uint64_t calibration_fingerprint(const Checkpoint *checkpoint);

/* Room for harms of n_layers, none of them measured yet. */
void calibration_open(Calibration *c, size_t n_layers);

/* The harms of a codec, zeroed, for the caller to fill; NULL without memory. */
double *calibration_add(Calibration *c, KvSide side, bool rotated, KvCodecId codec);

cJSON *calibration_json(const Calibration *c); /* NULL out of memory */

/* Reads a file. ERROR_FORMAT where it is no calibration, of another version, or damaged: nothing is open then. */
int calibration_read(Calibration *c, const char *path, Error *error);

/* Where build/calibrate puts the one of a checkpoint: "MODEL.gguf.calibration.json", "FOLDER/kv.calibration.json".
 * False where it is longer than `size`. */
bool calibration_path(const char *checkpoint_path, char *out, size_t size);

/* The one for a model: `path` where it is not NULL, else beside the checkpoint, else of those that come with the
 * program. ERROR_ARGUMENT where it is that of another model, or where there is none: the message says how to make one.
 */
int calibration_find(Calibration *c, const char *path, const Checkpoint *checkpoint, const char *checkpoint_path,
                     Error *error);
void calibration_free(Calibration *c); /* twice is fine */

#endif
