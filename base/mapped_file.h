/* A whole file, mapped read-only. */
#ifndef STOWKV_MAPPED_FILE_H
#define STOWKV_MAPPED_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct MappedFile {
    const uint8_t *data; /* (size); NULL when closed */
    size_t size;         /* in bytes, never 0 when open */
} MappedFile;

/* Fails for what is missing, unreadable, empty or not a regular file. */
int mapped_file_open(MappedFile *file, const char *path, Error *error);
void mapped_file_close(MappedFile *file); /* closing twice is fine */

/* Bytes of a mapped file that will hardly be read again: their pages leave memory, and come back from the file if they
 * are. */
void mapped_file_let_go(const uint8_t *data, size_t size);

#endif
