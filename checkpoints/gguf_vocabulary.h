/* The vocabulary of a GGUF file, tokenizer.*, as a Vocabulary. */
#ifndef STOWKV_GGUF_VOCABULARY_H
#define STOWKV_GGUF_VOCABULARY_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf.h"

/* Fills checkpoint->vocabulary, whose kind is VOCABULARY_NONE where the file has none, and notes what is guessed. */
int gguf_read_vocabulary(const Gguf *gguf, Checkpoint *checkpoint, Error *error);

#endif
