/* Whether a file of the disk tier can be trusted to LMDB, which takes its pages for what they claim to be. */
#ifndef STOWKV_PREFIX_FILE_CHECK_H
#define STOWKV_PREFIX_FILE_CHECK_H

#include <stddef.h>

/* A child process opens the file, walks through its tables and commits: 0 where all is well, there is no file, or it
 * cannot be told; MDB_CORRUPTED where tables do not agree, or the child does not survive it; an errno where that is not
 * the file's fault: the disk's (ENOSPC, EIO, EROFS, …), or EBUSY, others have kept its lock for a minute. */
int prefix_file_check(const char *path, size_t map_bytes);

#endif
