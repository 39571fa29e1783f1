/* Llama 3.1's scaling of RoPE as what GGUF has for it: a tensor of divisors of the frequencies. */
#ifndef STOWKV_ROPE_FACTORS_H
#define STOWKV_ROPE_FACTORS_H

#include "checkpoints/checkpoint.h"

/* Adds rope_freqs.weight where the configuration has rope_llama3. ERROR_FORMAT where that is not a scaling. */
int rope_factors_add(Checkpoint *checkpoint, const char *path, Error *error);

#endif
