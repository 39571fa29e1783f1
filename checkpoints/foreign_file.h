/* Files that are no checkpoint which this program reads, but which people have under a model's name: what they are, and
 * what to do. Web pages, Git LFS pointers, archives, other programs' formats, unfinished downloads.
 *
 *     if (foreign_file_refuse(file, path, &error) < 0) …     // it is one of these; the error says which
 *     foreign_name_hint(path, &error);                       // a better cure where the name says that it is a piece
 */
#ifndef STOWKV_FOREIGN_FILE_H
#define STOWKV_FOREIGN_FILE_H

#include "base/error.h"
#include "base/mapped_file.h"

/* 0, or ERROR_UNSUPPORTED where the file's first bytes are those of such a file. */
int foreign_file_refuse(const MappedFile *file, const char *path, Error *error);

/* After a failure: where the file's name is that of a piece of a cut file or of an unfinished download, `error` ends
 * with what to do about it. */
void foreign_name_hint(const char *path, Error *error);

#endif
