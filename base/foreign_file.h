/* Files that people have under the name of a model or a tokenizer, and that are none: what they are, and what to do.
 * Web pages, Git LFS pointers, archives, other programs' formats, unfinished downloads.
 *
 *     if (foreign_file_refuse(bytes, path, "a model in GGUF", &error) < 0) …  // it is one of these; the error says
 * which foreign_name_hint(path, &error);                   // a better cure where the name says that it is a piece
 */
#ifndef STOWKV_FOREIGN_FILE_H
#define STOWKV_FOREIGN_FILE_H

#include "base/error.h"
#include "base/string_view.h"

/* 0, or ERROR_UNSUPPORTED where the first bytes of `data`, a file's, are those of such a file, which is not `expected`.
 * For what does not have the magic of what it should be. */
int foreign_file_refuse(StringView data, const char *path, const char *expected, Error *error);

/* After a failure: where the file's name is that of a piece of a cut file or of an unfinished download, `error` ends
 * with what to do about it. */
void foreign_name_hint(const char *path, Error *error);

#endif
