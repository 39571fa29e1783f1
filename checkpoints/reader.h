/* The seam for containers: a reader turns a file of one format into a Checkpoint. A further format is a further row in
 * checkpoint.c and a file that implements it. Only readers include this. */
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

extern const CheckpointReader GGUF_READER;
extern const CheckpointReader LLAMA2C_READER;

/* Maps a further file; NULL on failure. */
const MappedFile *checkpoint_map(Checkpoint *checkpoint, const char *path, Error *error);

/* Memory that lives as long as the checkpoint, zeroed; NULL on failure. */
void *checkpoint_allocate(Checkpoint *checkpoint, size_t count, size_t size, const char *what, Error *error);

/* Makes room for `count` more tensors and returns the first; NULL on failure. */
Tensor *checkpoint_add_tensors(Checkpoint *checkpoint, size_t count, Error *error);

#endif
