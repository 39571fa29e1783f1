/* Splits text into the words that byte-level BPE merges within. A pre-tokenizer is a table row: names, patterns, and
 * what else the models that use it have in common.
 *
 *     PreTokenizer *pre;
 *     if (pre_tokenizer_open(&pre, sv("smollm"), &error) < 0) …        // an unknown name: the error lists all names
 *     pre_tokenizer_split(pre, text, on_word, context, &error);        // calls on_word for each word, in order
 *     pre_tokenizer_free(pre);
 */
#ifndef STOWKV_PRE_TOKENIZER_H
#define STOWKV_PRE_TOKENIZER_H

#include "base/error.h"
#include "tokenizer/vocabulary.h"

typedef struct PreTokenizer PreTokenizer;

/* Returns 0, or a negative error code, which ends the split. `word` is valid during the call. */
typedef int (*PreTokenFunction)(void *context, StringView word, Error *error);

/* Names are those of GGUF's tokenizer.ggml.pre; an empty one is GPT-2's. ERROR_UNSUPPORTED for an unknown one. */
int pre_tokenizer_open(PreTokenizer **out, StringView name, Error *error);
/* What a tokenizer.json says; of the rules, words and NFC are looked at. ERROR_UNSUPPORTED where PCRE2 cannot compile a
 * pattern. */
int pre_tokenizer_open_rules(PreTokenizer **out, const TextRules *rules, Error *error);
void pre_tokenizer_free(PreTokenizer *pre); /* NULL is fine */

/* Whether a word that is a token as a whole is taken as that token, whatever the merges say. */
bool pre_tokenizer_ignores_merges(const PreTokenizer *pre);

/* Whether models with this pre-tokenizer put BOS first where the checkpoint does not say. */
bool pre_tokenizer_adds_bos(const PreTokenizer *pre);

/* Every byte of `text` (valid UTF-8) is in exactly one word, after NFC where the pre-tokenizer has it; in none where a
 * pattern drops what it does not match. */
int pre_tokenizer_split(const PreTokenizer *pre, StringView text, PreTokenFunction on_word, void *context,
                        Error *error);

#endif
