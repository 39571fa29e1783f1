/* The reader of GGUF files; see reader.h. */
#ifndef STOWKV_GGUF_READER_H
#define STOWKV_GGUF_READER_H

#include "checkpoints/reader.h"

extern const CheckpointReader GGUF_READER;

#endif
