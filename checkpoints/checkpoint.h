/* An opened checkpoint: configuration, vocabulary and tensors by name, whatever the container. Nothing is read into
 * memory: tensors are views of mapped files, each checked to lie inside its file.
 *
 *     Checkpoint checkpoint;
 *     if (checkpoint_open(&checkpoint, "SmolLM2.gguf", &error) < 0) …
 *     const Tensor *q = checkpoint_tensor(&checkpoint, "blk.0.attn_q.weight");   // GGUF's names, for every container
 *     checkpoint_close(&checkpoint);
 */
#ifndef STOWKV_CHECKPOINT_H
#define STOWKV_CHECKPOINT_H

#include "base/mapped_file.h"
#include "base/tensor.h"
#include "checkpoints/config.h"
#include "tokenizer/vocabulary.h"

typedef struct Checkpoint {
    ModelConfig config;
    Vocabulary vocabulary;
    Tensor *tensors; /* (n_tensors) */
    size_t n_tensors;
    size_t weights_bytes; /* of all tensors, as encoded */

    /* Owned by the checkpoint: what the views above point into. */
    MappedFile *files; /* (n_files) */
    size_t n_files;
    void **allocations; /* (n_allocations), each freed on close */
    size_t n_allocations;
} Checkpoint;

int checkpoint_open(Checkpoint *checkpoint, const char *path, Error *error);
void checkpoint_close(Checkpoint *checkpoint); /* closing twice is fine */

/* A hash of all weights with their names, types and shapes: reads the whole checkpoint once. */
uint64_t checkpoint_fingerprint(const Checkpoint *checkpoint);

/* NULL where there is none. */
const Tensor *checkpoint_tensor(const Checkpoint *checkpoint, const char *name);

#endif
