/* See unnamed_file.h. */
#define _GNU_SOURCE /* O_TMPFILE */
#include "base/unnamed_file.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static int open_in(const char *folder) {
#ifdef O_TMPFILE
    return open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
#else
    (void)folder;
    return -1;
#endif
}

/* A file that had a name once does not get another: the one that is tried out is not the one that is written. */
int unnamed_file_open(const char *folder, const char *trial) {
    int tried = open_in(folder);
    if (tried < 0)
        return -1;
    bool works = unnamed_file_link(tried, trial) == 0 && unlink(trial) == 0;
    close(tried);
    return works ? open_in(folder) : -1;
}

int unnamed_file_link(int descriptor, const char *path) {
    char source[32];
    snprintf(source, sizeof source, "/proc/self/fd/%d", descriptor);
    return linkat(AT_FDCWD, source, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}
