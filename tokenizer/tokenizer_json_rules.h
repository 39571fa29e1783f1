/* The steps of a tokenizer.json: normalizer, pre_tokenizer, post_processor and decoder, as rules. */
#ifndef STOWKV_TOKENIZER_JSON_RULES_H
#define STOWKV_TOKENIZER_JSON_RULES_H

#include "tokenizer/vocabulary_memory.h"

#include <cjson/cJSON.h>

/* Fills of `rules` the words, NFC and the space in front, in the file's memory; of the vocabulary its kind (bytes or
 * pieces), and BOS and EOS as the post_processor puts them around a text. `path` is for messages. ERROR_UNSUPPORTED
 * names the step that is not supported. */
int tokenizer_json_read_rules(VocabularyFile *file, const cJSON *root, const char *path, TextRules *rules,
                              Error *error);

#endif
