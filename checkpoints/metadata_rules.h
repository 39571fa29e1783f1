/* What each metadata key means for a model of the Llama family, as tables: read by gguf_reader.c, harmless, or refused
 * unless its value changes nothing. docs/inputs.md lists them. No key is passed over in silence that could change what
 * is computed: an unknown one of the family's own ("llama.*") is refused, an unknown one of the tokenizer's is noted.
 */
#ifndef STOWKV_METADATA_RULES_H
#define STOWKV_METADATA_RULES_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf.h"

/* After the configuration is read: ERROR_UNSUPPORTED for a key of the family that changes the arithmetic in a way that
 * the forward pass does not have, or that nobody knows. */
int metadata_check_family(const Gguf *gguf, Checkpoint *checkpoint, Error *error);

/* The same for keys of the tokenizer that change how a text is split. */
int metadata_check_tokenizer(const Gguf *gguf, Checkpoint *checkpoint, Error *error);

/* Refuses what is GGUF but no language model: adapters, projectors, importance matrices. */
int metadata_check_kind(const Gguf *gguf, Error *error);

#endif
