/* generate --inspect: what a checkpoint is, and whether it can be used, without loading weights. */
#ifndef STOWKV_INSPECT_H
#define STOWKV_INSPECT_H

#include "session/session.h"

/* Prints family, shape, context, tokenizer, chat template, tensors and their types to stdout, and what had to be
 * guessed; the same goes to the file `json_path` (NULL: none; "-": stdout, without the text). The error is what a run
 * with the same options would end with: a tensor that is missing or has no part in the model, a tokenizer that cannot
 * be read. What is known is told all the same. */
int inspect(const SessionOptions *options, const char *json_path, Error *error);

#endif
