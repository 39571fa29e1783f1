/* A whole file, mapped read-only. */
#ifndef STOWKV_MAPPED_FILE_H
#define STOWKV_MAPPED_FILE_H

#include "base/error.h"
#include "base/string_view.h"

#include <stddef.h>
#include <stdint.h>

typedef struct MappedFile {
    const uint8_t *data; /* (size); NULL when closed */
    size_t size;         /* in bytes, never 0 when open */
} MappedFile;

/* ERROR_IO where the file is missing, unreadable or not regular; ERROR_FORMAT where it is empty. */
int mapped_file_open(MappedFile *file, const char *path, Error *error);
void mapped_file_close(MappedFile *file); /* closing twice is fine */

static inline StringView mapped_file_bytes(const MappedFile *file) {
    return (StringView){(const char *)file->data, file->size};
}

/* Drops the pages of bytes of a mapped file that will hardly be read again; a later read loads them from the file. */
void mapped_file_let_go(const uint8_t *data, size_t size);

#endif
