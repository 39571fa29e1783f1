/* A result file that is either whole or not there, however the program ends: it is written without a name, or where the
 * file system cannot do that under a temporary one, and gets its name when it is complete.
 *
 *     OutputFile file;
 *     if (output_file_open(&file, path, &error) < 0) …       // early: a bad path fails before the work is done
 *     fputs(text, file.stream);
 *     if (output_file_commit(&file, &error) < 0) …           // or output_file_discard(&file)
 *
 * A symbolic link stays one: the file that it points at is replaced. Devices, pipes, and what stdout and stderr already
 * write to (/dev/stdout) are written directly. Not for several threads. */
#ifndef STOWKV_OUTPUT_FILE_H
#define STOWKV_OUTPUT_FILE_H

#include "base/error.h"

#include <stdio.h>

typedef struct OutputFile {
    FILE *stream;
    char *path;            /* as given; "-" is stdout */
    char *target;          /* the path behind links; NULL where the path is written directly */
    const char *temporary; /* the name until then; NULL: none */
} OutputFile;

int output_file_open(OutputFile *file, const char *path, Error *error);
int output_file_commit(OutputFile *file, Error *error); /* flushes, checks, names; frees `file` also when it fails */
void output_file_discard(OutputFile *file);             /* leaves nothing behind; fine after commit */

/* For signal handlers that end the program: removes all temporary names. Async-signal-safe. */
void output_files_abandon(void);

#endif
