/* Scalings of RoPE as what GGUF has for them: tensors of divisors of the frequencies, Llama 3.1's among them. */
#ifndef STOWKV_ROPE_FACTORS_H
#define STOWKV_ROPE_FACTORS_H

#include "checkpoints/checkpoint.h"

/* Adds a tensor of n divisors for the caller to fill; the checkpoint owns them. `name` must outlive it. NULL: no
 * memory.
 */
float *rope_factors_new(Checkpoint *checkpoint, const char *name, size_t n, Error *error);

/* Adds rope_freqs.weight where the configuration has rope_llama3. ERROR_FORMAT where that is not a scaling. */
int rope_factors_add(Checkpoint *checkpoint, const char *path, Error *error);

#endif
