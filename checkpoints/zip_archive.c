/* See zip_archive.h; minizip reads the directory. */
#include "checkpoints/zip_archive.h"

#include "base/array.h"
#include "base/checked.h"

#include <stdint.h>
#include <stdlib.h>
#include <unzip.h>

enum { NAME_BYTES = 1024, ENCRYPTED = 1, DIRECTORY_END = 22 /* bytes of its last record, without a comment */ };

static int damaged(const char *path, const char *what, Error *error) {
    return error_set(error, ERROR_FORMAT, "%s: %s; the archive is truncated or damaged: fetch it again", path, what);
}

/* The place of the entry at which the reader is. */
static int locate(unzFile zip, const char *path, size_t file_size, ZipEntry *entry, Error *error) {
    int method, level;
    if (unzOpenCurrentFile2(zip, &method, &level, 1) != UNZ_OK)
        return damaged(path, "an entry is not where the directory has it", error);
    ZPOS64_T offset = unzGetCurrentFileZStreamPos64(zip);
    unzCloseCurrentFile(zip);
    entry->offset = (size_t)offset;
    if (offset == 0 || offset > SIZE_MAX || !range_within(entry->offset, entry->size, file_size))
        return damaged(path, "an entry goes beyond the end", error);
    return 0;
}

static int read_entry(ZipArchive *archive, unzFile zip, const char *path, size_t file_size, Error *error) {
    unz_file_info64 info;
    char name[NAME_BYTES];
    if (unzGetCurrentFileInfo64(zip, &info, name, sizeof name, NULL, 0, NULL, 0) != UNZ_OK ||
        info.size_filename >= sizeof name)
        return damaged(path, "the directory cannot be read", error);
    if (info.compression_method != 0 || (info.flag & ENCRYPTED) != 0)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: entry %.128s is %s, and weights are read where they lie; save the checkpoint again with "
                         "torch.save()",
                         path, name, info.compression_method != 0 ? "compressed" : "encrypted");
    if (info.compressed_size != info.uncompressed_size || info.uncompressed_size > SIZE_MAX / 2)
        return damaged(path, "an entry has two sizes", error);
    ZipEntry *entries =
        array_for_one_more(archive->entries, archive->count, sizeof *entries, "an archive's directory", error);
    if (entries == NULL)
        return error->code;
    archive->entries = entries;
    ZipEntry *entry = &entries[archive->count];
    *entry = (ZipEntry){.name = strdup(name), .size = (size_t)info.uncompressed_size};
    if (entry->name == NULL)
        return error_memory(error, "an archive's directory", sizeof name);
    archive->count++;
    return locate(zip, path, file_size, entry, error);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ZipEntry *)a)->name, ((const ZipEntry *)b)->name);
}

static int read_directory(ZipArchive *archive, unzFile zip, const char *path, size_t file_size, Error *error) {
    int state = unzGoToFirstFile(zip);
    while (state == UNZ_OK) {
        if (read_entry(archive, zip, path, file_size, error) < 0)
            return error->code;
        state = unzGoToNextFile(zip);
    }
    if (state != UNZ_END_OF_LIST_OF_FILE)
        return damaged(path, "the directory cannot be read", error);
    qsort(archive->entries, archive->count, sizeof *archive->entries, by_name);
    for (size_t i = 1; i < archive->count; i++)
        if (by_name(&archive->entries[i - 1], &archive->entries[i]) == 0)
            return damaged(path, "two entries have one name", error);
    return 0;
}

/* minizip looks for the end of the directory, and takes one that is cut. */
static bool ends_with_directory(StringView file) {
    static const char SIGNATURE[] = "PK\5\6";
    return file.length >= DIRECTORY_END &&
           memcmp(file.bytes + file.length - DIRECTORY_END, SIGNATURE, sizeof SIGNATURE - 1) == 0;
}

int zip_archive_open(ZipArchive *archive, const char *path, StringView file, Error *error) {
    *archive = (ZipArchive){0};
    unzFile zip = ends_with_directory(file) ? unzOpen64(path) : NULL;
    if (zip == NULL)
        return damaged(path, "the directory at the end is missing", error);
    int status = read_directory(archive, zip, path, file.length, error);
    unzClose(zip);
    if (status < 0)
        zip_archive_close(archive);
    return status;
}

void zip_archive_close(ZipArchive *archive) {
    for (size_t i = 0; i < archive->count; i++)
        free(archive->entries[i].name);
    free(archive->entries);
    *archive = (ZipArchive){0};
}

const ZipEntry *zip_archive_find(const ZipArchive *archive, const char *name) {
    const ZipEntry key = {.name = (char *)name};
    return archive->count == 0 ? NULL
                               : bsearch(&key, archive->entries, archive->count, sizeof *archive->entries, by_name);
}
