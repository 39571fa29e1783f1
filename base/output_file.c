/* Atomic result files; see output_file.h. */
#include "base/output_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void release(OutputFile *file) {
    free(file->path);
    free(file->temporary);
    *file = (OutputFile){0};
}

static int fail(OutputFile *file, Error *error, int reason) {
    error_set(error, ERROR_IO, "%s: cannot be written: %s; name a path in a writable folder with free space",
              file->path, strerror(reason));
    output_file_discard(file);
    return ERROR_IO;
}

/* Opens PATH.XXXXXX beside the path, with the permissions that a plain fopen would give. */
static FILE *open_temporary(OutputFile *file) {
    size_t size = strlen(file->path) + sizeof ".XXXXXX";
    file->temporary = malloc(size);
    if (file->temporary == NULL)
        return NULL;
    snprintf(file->temporary, size, "%s.XXXXXX", file->path);
    int descriptor = mkstemp(file->temporary);
    if (descriptor < 0) {
        free(file->temporary);
        file->temporary = NULL;
        return NULL;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);
    return fdopen(descriptor, "wb");
}

int output_file_open(OutputFile *file, const char *path, Error *error) {
    *file = (OutputFile){.path = strdup(path)};
    if (file->path == NULL)
        return error_memory(error, "a file name", strlen(path));
    if (strcmp(path, "-") == 0) {
        file->stream = stdout;
        return 0;
    }
    struct stat status;
    bool exists = stat(path, &status) == 0;
    if (exists && S_ISDIR(status.st_mode))
        return fail(file, error, EISDIR);
    file->stream = exists && !S_ISREG(status.st_mode) ? fopen(path, "wb") : open_temporary(file);
    return file->stream == NULL ? fail(file, error, errno) : 0;
}

int output_file_commit(OutputFile *file, Error *error) {
    bool failed = fflush(file->stream) != 0 || ferror(file->stream);
    int reason = errno;
    if (file->stream != stdout) {
        if (file->temporary != NULL && !failed && fsync(fileno(file->stream)) != 0 && errno != EINVAL)
            failed = true, reason = errno;
        if (fclose(file->stream) != 0 && !failed)
            failed = true, reason = errno;
    }
    file->stream = NULL;
    if (!failed && file->temporary != NULL && rename(file->temporary, file->path) != 0)
        failed = true, reason = errno;
    if (failed)
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
