/* What the files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, generation_config.json,
 * config.json and chat_template.jinja of a Hugging Face folder. */
#ifndef STOWKV_TOKENIZER_SETTINGS_H
#define STOWKV_TOKENIZER_SETTINGS_H

#include "tokenizer/vocabulary_memory.h"

/* Adds it to file->vocabulary, which is read already; files that are missing say nothing. `folder` is empty or ends
 * with
 * '/'. */
int tokenizer_settings_read(VocabularyFile *file, const char *folder, Error *error);

#endif
