/* Whole result files; see output_file.h. */
#include "base/output_file.h"

#include "base/file_identity.h"
#include "base/unnamed_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TEMPORARY 16  /* more than any program has outputs */
#define NAME_KEPT     200 /* bytes of a file's name that its temporary name begins with */

/* Temporary names that may exist. A slot is written before its file is made and emptied after it is gone, and is memory
 * that is never freed: a signal handler may look at any time. */
static struct Slot {
    char path[PATH_MAX];
    volatile sig_atomic_t taken;
} slots[MAX_TEMPORARY];

void output_files_abandon(void) {
    for (size_t i = 0; i < MAX_TEMPORARY; i++)
        if (slots[i].taken)
            unlink(slots[i].path);
}

/* A name beside the target that nobody else has thought of; NULL with errno. */
static const char *claim_name(const char *target) {
    unsigned long long number = 0;
    size_t folder = path_folder_length(target), i = 0;
    while (i < MAX_TEMPORARY && slots[i].taken)
        i++;
    if (i == MAX_TEMPORARY || getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return errno = EAGAIN, NULL;
    int length = snprintf(slots[i].path, sizeof slots[i].path, "%.*s%.*s.%016llx", (int)folder, target, NAME_KEPT,
                          target + folder, number);
    if (length < 0 || (size_t)length >= sizeof slots[i].path)
        return errno = ENAMETOOLONG, NULL;
    slots[i].taken = 1;
    return slots[i].path;
}

static void release_name(OutputFile *file) {
    for (size_t i = 0; i < MAX_TEMPORARY; i++)
        if (file->temporary == slots[i].path)
            slots[i].taken = 0;
    file->temporary = NULL;
}

static void release(OutputFile *file) {
    release_name(file);
    free(file->path);
    free(file->target);
    *file = (OutputFile){0};
}

static int fail(OutputFile *file, Error *error, int reason) {
    error_set(error, ERROR_IO, "%s: cannot be written: %s; name a path in a writable folder with free space",
              file->path, strerror(reason));
    output_file_discard(file);
    return ERROR_IO;
}

static FILE *stream_of(int descriptor) {
    FILE *stream = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (stream == NULL && descriptor >= 0) {
        int reason = errno;
        close(descriptor);
        errno = reason;
    }
    return stream;
}

/* A file that will take the target's place: without a name where that can be had. */
static FILE *open_replacement(OutputFile *file) {
    char folder[PATH_MAX] = ".";
    size_t length = path_folder_length(file->target);
    if (length >= sizeof folder)
        return errno = ENAMETOOLONG, NULL;
    if (file->target[length] == '\0')
        return errno = length > 0 ? EISDIR : ENOENT, NULL;
    if (length > 0)
        snprintf(folder, sizeof folder, "%.*s", (int)length, file->target);
    file->temporary = claim_name(file->target);
    if (file->temporary == NULL)
        return NULL;
    int descriptor = unnamed_file_open(folder, file->temporary);
    if (descriptor >= 0)
        release_name(file);
    else
        descriptor = open(file->temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    return stream_of(descriptor);
}

/* The descriptor among stdout and stderr that writes to this very file already; -1: none. */
static int standard_descriptor(const struct stat *status) {
    for (int descriptor = STDOUT_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        struct stat other;
        if (fstat(descriptor, &other) == 0 && other.st_dev == status->st_dev && other.st_ino == status->st_ino)
            return descriptor;
    }
    return -1;
}

static FILE *open_stream(OutputFile *file) {
    struct stat status;
    bool exists = stat(file->path, &status) == 0;
    int standard = exists ? standard_descriptor(&status) : -1;
    if (exists && S_ISDIR(status.st_mode))
        return errno = EISDIR, NULL;
    if (standard >= 0)
        return stream_of(fcntl(standard, F_DUPFD_CLOEXEC, 0));
    if (exists && !S_ISREG(status.st_mode))
        return fopen(file->path, "wb");
    if (exists && access(file->path, W_OK) != 0)
        return NULL;
    file->target = path_behind_links(file->path);
    return file->target == NULL ? NULL : open_replacement(file);
}

int output_file_open(OutputFile *file, const char *path, Error *error) {
    *file = (OutputFile){.path = strdup(path)};
    if (file->path == NULL)
        return error_memory(error, "a file name", strlen(path));
    file->stream = strcmp(path, "-") == 0 ? stdout : open_stream(file);
    return file->stream == NULL ? fail(file, error, errno) : 0;
}

/* Whole and on the disk, the file gets its name. One without a name takes a free one at once; replacing a file needs a
 * temporary one first. */
static bool put_in_place(OutputFile *file) {
    int descriptor = fileno(file->stream);
    if (fsync(descriptor) != 0 && errno != EINVAL)
        return false;
    if (file->temporary == NULL) {
        if (unnamed_file_link(descriptor, file->target) == 0)
            return true;
        if (errno != EEXIST || (file->temporary = claim_name(file->target)) == NULL ||
            unnamed_file_link(descriptor, file->temporary) != 0)
            return false;
    }
    if (rename(file->temporary, file->target) != 0)
        return false;
    release_name(file);
    return true;
}

int output_file_commit(OutputFile *file, Error *error) {
    bool done = fflush(file->stream) == 0 && !ferror(file->stream);
    if (done && file->target != NULL)
        done = put_in_place(file);
    int reason = errno;
    if (file->stream != stdout && fclose(file->stream) != 0 && done)
        done = false, reason = errno;
    file->stream = NULL;
    if (!done)
        return fail(file, error, reason);
    release(file);
    return 0;
}

void output_file_discard(OutputFile *file) {
    if (file->stream != NULL && file->stream != stdout)
        fclose(file->stream);
    if (file->temporary != NULL)
        unlink(file->temporary);
    release(file);
}
