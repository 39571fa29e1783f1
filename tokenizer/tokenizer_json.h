/* tokenizer.json of Hugging Face's tokenizers as a vocabulary: byte-pair encoding of bytes (GPT-2, Llama 3, Qwen) or of
 * SentencePiece's pieces (Llama 2, Mistral, Gemma). What would change a text's ids and is not done here is refused by
 * name. */
#ifndef STOWKV_TOKENIZER_JSON_H
#define STOWKV_TOKENIZER_JSON_H

#include "tokenizer/vocabulary_memory.h"

#include <cjson/cJSON.h>

/* Fills file->vocabulary from the whole document, which is not needed afterwards. `path` is for messages; n_vocab as in
 * vocabulary_file_open(). */
int tokenizer_json_read(VocabularyFile *file, const cJSON *root, const char *path, size_t n_vocab, Error *error);

#endif
