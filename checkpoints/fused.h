/* Matrices that some families store as one tensor, rows behind rows: Phi-3's q, k and v, and its gate and up. */
#ifndef STOWKV_FUSED_H
#define STOWKV_FUSED_H

#include "checkpoints/checkpoint.h"

/* Puts views of their parts, under the names that roles have, in the place of such tensors; no data moves. After the
 * configuration is checked. ERROR_FORMAT where rows are not as many as the configuration says. */
int checkpoint_split_fused(Checkpoint *checkpoint, const char *path, Error *error);

#endif
