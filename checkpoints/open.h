/* Opens a checkpoint of any container.
 *
 *     Checkpoint checkpoint;
 *     if (checkpoint_open(&checkpoint, "SmolLM2.gguf", &error) < 0) …
 *     const Tensor *q = checkpoint_tensor(&checkpoint, "blk.0.attn_q.weight");
 *     checkpoint_close(&checkpoint);
 *
 * Errors: no format recognises the file, it is damaged, or it needs what is not supported. Nothing is left open then.
 */
#ifndef STOWKV_CHECKPOINT_OPEN_H
#define STOWKV_CHECKPOINT_OPEN_H

#include "checkpoints/checkpoint.h"

int checkpoint_open(Checkpoint *checkpoint, const char *path, Error *error);

/* The same to look at types, shapes and bytes: what would have to be joined of several files stays zero, and takes no
 * memory. */
int checkpoint_open_outline(Checkpoint *checkpoint, const char *path, Error *error);

#endif
