/* Where the files in a zip archive lie, for archives that are mapped: entries must be stored as they are. Nothing is
 * ever unpacked, so no archive can be larger than it is.
 *
 *     ZipArchive archive;
 *     if (zip_archive_open(&archive, path, bytes, &error) < 0) …
 *     const ZipEntry *entry = zip_archive_find(&archive, sv("model/data.pkl"));
 *     zip_archive_close(&archive);
 */
#ifndef STOWKV_ZIP_ARCHIVE_H
#define STOWKV_ZIP_ARCHIVE_H

#include "base/error.h"
#include "base/string_view.h"

typedef struct ZipEntry {
    char *name;          /* owned by the archive */
    size_t offset, size; /* of its bytes in the file, which they lie within */
} ZipEntry;

typedef struct ZipArchive {
    ZipEntry *entries; /* (count) by name, owned */
    size_t count;
} ZipArchive;

/* `file` is all of the file at `path`. ERROR_FORMAT where it is damaged, or goes on behind its directory;
 * ERROR_UNSUPPORTED where an entry is compressed or encrypted. */
int zip_archive_open(ZipArchive *archive, const char *path, StringView file, Error *error);
void zip_archive_close(ZipArchive *archive);

const ZipEntry *zip_archive_find(const ZipArchive *archive, const char *name); /* NULL: there is none */

#endif
