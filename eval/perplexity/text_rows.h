/* The text of an evaluation: a file's bytes, or the rows of a data set joined as the evaluators of Hugging Face and
 * GPTQ join them. */
#ifndef STOWKV_TEXT_ROWS_H
#define STOWKV_TEXT_ROWS_H

#include "base/error.h"
#include "base/string_view.h"

/* Fails for what is not text: a NUL byte, or bytes that are not UTF-8; `path` is for the message. */
int text_check(StringView text, const char *path, Error *error);

/* "\n\n".join(rows), where a line with nothing but white space is an empty row and any other line keeps its newline,
 * as \n whether it was \n, \r\n or \r (as the data set wikitext-2-raw-v1 is made from its files). The caller frees
 * *out. */
int text_join_rows(StringView text, char **out, size_t *length, Error *error);

#endif
