/* The index of weights in several files, NAME.safetensors.index.json: which file has which tensor.
 *
 *     ShardIndex index;
 *     int status = shard_index_open(&index, path, &error);
 *     for (size_t i = 0; i < index.n_files; i++) …            // read index.files[i], then tell what is in it:
 *         shard_index_found(&index, index.files[i], tensors, n_tensors);
 *     status = shard_index_check(&index, &error);             // whether all is where the index says
 *     shard_index_close(&index);                              // also where opening has failed
 */
#ifndef STOWKV_SHARD_INDEX_H
#define STOWKV_SHARD_INDEX_H

#include "base/json_document.h"
#include "base/tensor.h"

typedef struct ShardIndex {
    const char *path; /* for messages */
    cJSON *root;      /* owned */
    cJSON **entries;  /* (n_entries) tensor: file, by the tensor's name; owned */
    bool *found;      /* (n_entries); owned */
    size_t n_entries;
    const char **files; /* (n_files) each once, plain names in the index's folder; owned */
    size_t n_files;
} ShardIndex;

/* ERROR_FORMAT where it is no index. Valid for closing on failure too. `path` must outlive the index. */
int shard_index_open(ShardIndex *index, const char *path, Error *error);
void shard_index_close(ShardIndex *index);

/* Marks those of the tensors, (n), whom the index has in `file`. */
void shard_index_found(ShardIndex *index, const char *file, const Tensor *tensors, size_t n);

/* ERROR_FORMAT where a tensor is not in the file that the index names. */
int shard_index_check(const ShardIndex *index, Error *error);

#endif
