/* tiktoken's ranks, a line "base64 rank" for each token, as Llama 3's tokenizer.model has them: byte-level BPE in which
 * a token's id is its rank, with Llama 3's words and 256 special tokens behind. */
#ifndef STOWKV_TIKTOKEN_H
#define STOWKV_TIKTOKEN_H

#include "tokenizer/vocabulary_memory.h"

/* Whether a file begins with such a line. */
bool tiktoken_recognises(StringView bytes);

/* Fills file->vocabulary; ranks must go from 0 up. n_vocab: as in vocabulary_file_open(). */
int tiktoken_read(VocabularyFile *file, StringView bytes, const char *path, size_t n_vocab, Error *error);

#endif
