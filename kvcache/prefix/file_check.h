/* Whether a file of the disk tier can be trusted to LMDB, which takes its pages for what they claim to be. */
#ifndef STOWKV_PREFIX_FILE_CHECK_H
#define STOWKV_PREFIX_FILE_CHECK_H

#include <stdbool.h>
#include <stddef.h>

/* A child process opens the file and walks through its tables: false where they do not agree, or the child does not
 * survive it. True where there is no file. */
bool prefix_file_is_sound(const char *path, size_t map_bytes);

#endif
