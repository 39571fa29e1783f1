/* What tensors are called outside GGUF: by Hugging Face's classes, and by Meta's program, which gpt-fast follows.
 * Readers of such containers add tensors under the names in the file; this makes them the tensors that a GGUF file has.
 */
#ifndef STOWKV_TENSOR_NAMES_H
#define STOWKV_TENSOR_NAMES_H

#include "checkpoints/checkpoint.h"

/* The names of all tensors, fused ones cut into their parts. The configuration must be there; its rope_pairing becomes
 * that of the names: Hugging Face's rows of q and k are in halves, Meta's of a llama interleaved. `tied_output` says
 * that the embedding is the output matrix too: then a copy of it is left out. Names that no table has stay as they are,
 * and are refused where tensors are bound to roles. */
int tensor_names_adopt(Checkpoint *checkpoint, bool tied_output, const char *path, Error *error);

#endif
