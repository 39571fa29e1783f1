/* Whether two paths name one file: through links, other spellings and folders, and also before the file is there.
 *
 *     FileIdentity a, b;
 *     if (file_identify("out/a.json", &a) && file_identify("./out/link", &b) && file_is_same(&a, &b)) …
 */
#ifndef STOWKV_FILE_IDENTITY_H
#define STOWKV_FILE_IDENTITY_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* A regular file, or a place for one: then the folder is identified, and the name in it is not empty. */
typedef struct FileIdentity {
    dev_t device;
    ino_t inode;
    char name[NAME_MAX + 1];
} FileIdentity;

/* False where there is nothing to mix up: a device, a pipe, a folder, or a path that leads nowhere. */
bool file_identify(const char *path, FileIdentity *out);
bool file_identify_descriptor(int descriptor, FileIdentity *out);

bool file_is_same(const FileIdentity *a, const FileIdentity *b);

/* The path that opening `path` for writing would create or change: symbolic links at its end are followed, also those
 * that point at nothing yet. The caller frees it; NULL without memory. */
char *path_behind_links(const char *path);

bool path_is_folder(const char *path);

/* Writes the path of `name` in the folder that `path` is, or that it lies in, to `out`, of `size` bytes; returns
 * whether there is such a file. */
bool path_beside(const char *path, const char *name, char *out, size_t size);

/* The bytes of `path` that are its folder, the last slash included; 0: none. */
size_t path_folder_length(const char *path);

#endif
