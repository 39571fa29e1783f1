/* A result file that is either whole or not there: it is written beside its final name and renamed when complete.
 *
 *     OutputFile file;
 *     if (output_file_open(&file, path, &error) < 0) …       // early: a bad path fails before the work is done
 *     fputs(text, file.stream);
 *     if (output_file_commit(&file, &error) < 0) …           // or output_file_discard(&file)
 */
#ifndef STOWKV_OUTPUT_FILE_H
#define STOWKV_OUTPUT_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct OutputFile {
    FILE *stream;
    char *path;      /* as given; "-" is stdout */
    char *temporary; /* NULL where the path is written directly: stdout, a device, a pipe */
} OutputFile;

int output_file_open(OutputFile *file, const char *path, Error *error);
int output_file_commit(OutputFile *file, Error *error); /* flushes, checks, renames; frees `file` also when it fails */
void output_file_discard(OutputFile *file);             /* leaves nothing behind; fine after commit */

#endif
