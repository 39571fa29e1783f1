/* The reader of llama2.c's .bin files; see reader.h. */
#ifndef STOWKV_LLAMA2C_READER_H
#define STOWKV_LLAMA2C_READER_H

#include "checkpoints/reader.h"

extern const CheckpointReader LLAMA2C_READER;

#endif
