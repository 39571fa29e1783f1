/* The seam for containers: a reader turns a file of one format into a Checkpoint. A further format is a further row in
 * open.c and a file that implements it. */
#ifndef STOWKV_CHECKPOINT_READER_H
#define STOWKV_CHECKPOINT_READER_H

#include "checkpoints/checkpoint.h"

typedef struct CheckpointReader {
    const char *name; /* of the format, for messages */
    bool (*recognises)(const MappedFile *file, const char *path);
    /* Fills config, vocabulary and tensors from checkpoint->files[0], which is mapped already; may map further files.
     * On failure the caller closes the checkpoint. */
    int (*read)(Checkpoint *checkpoint, const char *path, Error *error);
} CheckpointReader;

#endif
