/* Where the tests find their oracles and models. Where one is missing, a test is skipped and says so on stderr. */
#ifndef STOWKV_FIXTURE_FILES_H
#define STOWKV_FIXTURE_FILES_H

#include <stddef.h>

/* A path inside the folder that the environment variable names ("STOWKV_FIXTURES", "STOWKV_DATA"); it lives until the
 * next call. Skips the running test where the variable is empty or the file is not there. */
const char *fixture_path(const char *variable, const char *name);

/* The file that the variable itself names ("STOWKV_SMOLLM2"). */
const char *fixture_file(const char *variable);

/* The whole file, malloc'd; fails the test where it cannot be read. */
void *fixture_load(const char *path, size_t *size_bytes);

/* Ends the test by a signal once it has computed for so many seconds more: it hangs. 0: no longer. Time in which the
 * machine does something else does not count. */
void fixture_hangs_after(int seconds);

#endif
