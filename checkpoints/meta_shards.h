/* Meta's large models, cut over files consolidated.00.pth, consolidated.01.pth and so on, one for each GPU: each has a
 * part of every matrix, and all of the norms.
 *
 *     size_t n, ends[META_SHARDS_MAX];
 *     int status = meta_shards_count("folder/", &n, &error);
 *     for (size_t i = 0; i < n; i++) …                 // adds the tensors of meta_shard_name(i, name); ends[i] is
 * behind status = meta_shards_join(&checkpoint, "folder/", ends, n, &error); // makes them the model's … // reads the
 * configuration status = meta_shards_check(&checkpoint, "folder/", n, &error);      // whether these were all shards
 */
#ifndef STOWKV_META_SHARDS_H
#define STOWKV_META_SHARDS_H

#include "checkpoints/checkpoint.h"

#define META_SHARDS_MAX       100 /* their numbers have two digits */
#define META_SHARD_NAME_BYTES 40

/* "consolidated.03.pth", in `name`. */
const char *meta_shard_name(size_t i, char name[META_SHARD_NAME_BYTES]);

/* Whether a file has such a name; `name` is without its folder. */
bool meta_shard_is_name(const char *name);

/* How many shards are in the folder, whose path is empty or ends with a slash; an error where one is missing between
 * others. */
int meta_shards_count(const char *folder, size_t *n_shards, Error *error);

/* Makes one tensor of each tensor's parts: rows or columns one behind the other, in memory that the checkpoint owns.
 * The checkpoint's tensors must be those of the shards, shard after shard, `ends` (n_shards) the ends of each. One
 * shard's stay as they are. ERROR_FORMAT where shards do not have the same tensors, types and shapes, or norms differ.
 */
int meta_shards_join(Checkpoint *checkpoint, const char *folder, const size_t *ends, size_t n_shards, Error *error);

/* By the checkpoint's configuration, which the caller has read: an error where a model of its width is cut into another
 * number of shards. */
int meta_shards_check(const Checkpoint *checkpoint, const char *folder, size_t n_shards, Error *error);

#endif
