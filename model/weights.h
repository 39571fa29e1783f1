/* The tensors of a checkpoint by their role (checkpoints/roles.h): bound to named fields, each checked for its shape.
 */
#ifndef STOWKV_WEIGHTS_H
#define STOWKV_WEIGHTS_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/roles.h"

/* Every role that the family has finds its tensor, and every tensor its role: what is left over is refused by name,
 * unless the table of roles lists it as harmless (RoPE's frequencies, which must be the configuration's). The views
 * point into `checkpoint`, which must outlive them. */
int weights_bind(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error);
void weights_free(Weights *weights);

/* Bytes of weights that one token reads on its way through the model: every matrix, gain and bias once, but of the
 * token embedding one row (where it is the output matrix too, that is read whole). */
size_t weights_bytes_per_token(const Weights *weights, const ModelConfig *config);

/* The first tensor of the checkpoint that holds a NaN or an infinity, or NULL: what to look for when logits are not
 * finite. Reads every weight. */
const Tensor *weights_find_nonfinite(const Checkpoint *checkpoint);

#endif
