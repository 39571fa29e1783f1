/* Matrices that are stored as one tensor, rows behind rows: Phi-3's q, k and v, and its gate and up; gpt-fast's wqkv.
 */
#ifndef STOWKV_FUSED_H
#define STOWKV_FUSED_H

#include "checkpoints/checkpoint.h"

#define FUSED_PARTS 3 /* at most */

/* Makes tensor `i` the first of its parts, whose roles are in order (NULL behind the last); the others are added behind
 * the last tensor, under the names of the layer's roles. They are views: no data moves. ERROR_FORMAT where rows are not
 * as many as the configuration says. */
int checkpoint_split_rows(Checkpoint *checkpoint, size_t i, const char *const roles[FUSED_PARTS], size_t layer,
                          const char *path, Error *error);

/* The same for all tensors of a family that stores such ones under GGUF's names. After the configuration is checked. */
int checkpoint_split_fused(Checkpoint *checkpoint, const char *path, Error *error);

#endif
