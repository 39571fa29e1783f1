/* Tokenizers in files of their own, as plain data: tokenizer.json, SentencePiece's .model, tiktoken's ranks, told apart
 * by what is in them; and what the files beside them say about BOS, ends and the chat template.
 *
 *     VocabularyFile *file;
 *     if (vocabulary_file_open(&file, "model/tokenizer.json", 0, &error) < 0) …
 *     tokenizer_open_vocabulary(&tokenizer, &file->vocabulary, &error);
 *     vocabulary_file_free(file);                                           // after the tokenizer
 */
#ifndef STOWKV_VOCABULARY_FILE_H
#define STOWKV_VOCABULARY_FILE_H

#include "tokenizer/vocabulary_memory.h"

/* Reads the file; beside a tokenizer.json also what vocabulary_folder_open() reads. n_vocab: tokens that the model has,
 * or 0 where that is not known. A tokenizer.json has often a few less, which are added as unused ones, or names a few
 * added tokens that the model cannot read, which are left out, with a note. ERROR_IO, ERROR_FORMAT, ERROR_UNSUPPORTED.
 */
int vocabulary_file_open(VocabularyFile **out, const char *path, size_t n_vocab, Error *error);

/* The tokenizer of a model's folder (empty: the current one; else ends with '/'): tokenizer.json, else tokenizer.model;
 * BOS, EOS and whether BOS comes first from tokenizer_config.json, special_tokens_map.json and tokenizer.json itself;
 * ends from generation_config.json, else config.json; the chat template from chat_template.jinja, else
 * tokenizer_config.json. NULL in *out where there is no tokenizer. */
int vocabulary_folder_open(VocabularyFile **out, const char *folder, size_t n_vocab, Error *error);

#endif
