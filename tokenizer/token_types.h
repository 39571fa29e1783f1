/* What each token of a vocabulary is: normal, control, a byte, … */
#ifndef STOWKV_TOKEN_TYPES_H
#define STOWKV_TOKEN_TYPES_H

#include "base/error.h"
#include "tokenizer/vocabulary.h"

/* Fills types, (n_tokens) TokenType: the file's, corrected by its spelling and by the ids that the file names, of which
 * `unknown` may be -1; and adds to ends, (n_tokens), the tokens that end a text by their names. ERROR_FORMAT where the
 * file has other types. */
int token_types_read(const Vocabulary *vocabulary, int32_t unknown, uint8_t *types, bool *ends, Error *error);

#endif
