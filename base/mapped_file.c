/* Memory mapping of files; see mapped_file.h. */
#include "base/mapped_file.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_descriptor(MappedFile *file, int descriptor, const char *path, Error *error) {
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return error_set(error, ERROR_IO, "%s: %s; check the file", path, strerror(errno));
    if (S_ISDIR(status.st_mode))
        return error_set(error, ERROR_IO, "%s: is a directory; name a file in it", path);
    if (!S_ISREG(status.st_mode))
        return error_set(error, ERROR_IO, "%s: is not a regular file; it must be one that can be mapped", path);
    if (status.st_size == 0)
        return error_set(error, ERROR_FORMAT, "%s: the file is empty; fetch or export it again", path);
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED)
        return error_set(error, ERROR_IO, "%s: cannot be mapped: %s; free memory or raise the address space limit",
                         path, strerror(errno));
    *file = (MappedFile){data, (size_t)status.st_size};
    return 0;
}

int mapped_file_open(MappedFile *file, const char *path, Error *error) {
    *file = (MappedFile){0};
    /* O_NONBLOCK: a pipe that nobody writes to is refused, not waited for. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0 && strstr(path, "://") != NULL)
        return error_set(error, ERROR_IO, "%s: is an address, not a file; fetch it first", path);
    if (descriptor < 0)
        return error_set(error, ERROR_IO, "%s: %s; check the path and its permissions", path, strerror(errno));
    int status = map_descriptor(file, descriptor, path, error);
    close(descriptor);
    return status;
}

void mapped_file_close(MappedFile *file) {
    if (file->data != NULL)
        munmap((void *)file->data, file->size);
    *file = (MappedFile){0};
}

/* Whole pages only: the first and the last may hold bytes of neighbours. */
void mapped_file_let_go(const uint8_t *data, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = round_up((uintptr_t)data, page);
    uintptr_t end = ((uintptr_t)data + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
