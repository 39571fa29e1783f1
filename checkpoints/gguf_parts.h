/* Tensors of a GGUF file, and of the further files where a model is split: NAME-00001-of-00003.gguf and so on. */
#ifndef STOWKV_GGUF_PARTS_H
#define STOWKV_GGUF_PARTS_H

#include "checkpoints/checkpoint.h"
#include "checkpoints/gguf.h"

/* An error that names the first part, where the file is a later one: those hold no configuration. */
int gguf_refuse_later_part(const Gguf *gguf, const char *path, Error *error);

int gguf_add_tensors(const Gguf *gguf, Checkpoint *checkpoint, Error *error);

/* Maps the other parts of the model of which `first` is the first, if there are any, and adds their tensors. */
int gguf_add_other_parts(const Gguf *first, Checkpoint *checkpoint, const char *path, Error *error);

#endif
