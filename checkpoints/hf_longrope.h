/* LongRoPE of a Hugging Face checkpoint, which Phi-3's long contexts have, as what GGUF has for it: two tensors of
 * divisors of the frequencies, and what is in LongRope. */
#ifndef STOWKV_HF_LONGROPE_H
#define STOWKV_HF_LONGROPE_H

#include "base/json_document.h"
#include "checkpoints/checkpoint.h"

/* Whether rope_scaling, or rope_parameters, is of this type. */
bool is_longrope(const cJSON *rope);

/* Fills rope_long of the configuration, which has been read, and adds the tensors, where config.json has them.
 * ERROR_FORMAT: something is missing, or no number. */
int hf_longrope_read(const cJSON *root, const char *path, Checkpoint *checkpoint, Error *error);

#endif
