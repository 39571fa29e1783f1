/* Checkpoints that are several files of a folder: a configuration beside weights, which may be shards with an index, as
 * Hugging Face and Meta publish them. Named by the folder, by its configuration or index, or by a file of the weights.
 */
#ifndef STOWKV_FOLDER_READER_H
#define STOWKV_FOLDER_READER_H

#include "checkpoints/reader.h"

/* Whether `path` is a folder, or a file that says something about one: config.json, an index. */
bool folder_recognises(const char *path);

/* Fills the checkpoint from the folder that is, or that has, `path`. On failure the caller closes it. */
int folder_read(Checkpoint *checkpoint, const char *path, Error *error);

/* Files of weights that say nothing of the configuration, which lies beside them. */
extern const CheckpointReader SAFETENSORS_READER, PTH_READER;

#endif
