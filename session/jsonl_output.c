/* See jsonl_output.h. */
#include "session/jsonl_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int io_error(const JsonlOutput *output, Error *error) {
    return error_set(error, ERROR_IO, "%s: cannot be written: %s; name a path in a writable folder with free space",
                     output->path, strerror(errno));
}

/* A line is written at once, so that a signal comes before or behind it. One that does not fit is taken back; where
 * that fails too, the next run does it. */
int jsonl_output_add_text(JsonlOutput *output, const char *text, Error *error) {
    int descriptor = fileno(output->stream);
    size_t length = strlen(text);
    struct iovec parts[] = {{(void *)text, length}, {"\n", 1}};
    off_t end = lseek(descriptor, 0, SEEK_END);
    ssize_t written = writev(descriptor, parts, 2);
    if (written == (ssize_t)length + 1)
        return 0;
    if (written >= 0)
        errno = ENOSPC;
    io_error(output, error);
    (void)!ftruncate(descriptor, end);
    return error->code;
}

int jsonl_output_add(JsonlOutput *output, const cJSON *object, Error *error) {
    char *text = object == NULL ? NULL : cJSON_PrintUnformatted(object);
    int status = text == NULL ? error_memory(error, "a result", 0) : jsonl_output_add_text(output, text, error);
    free(text);
    return status;
}

/* Where the last whole line ends. */
static off_t end_of_lines(FILE *stream, off_t size) {
    char piece[4096];
    for (off_t end = size; end > 0;) {
        off_t begin = end > (off_t)sizeof piece ? end - (off_t)sizeof piece : 0;
        ssize_t n = pread(fileno(stream), piece, (size_t)(end - begin), begin);
        for (ssize_t i = n; i > 0; i--)
            if (piece[i - 1] == '\n')
                return begin + i;
        end = begin;
    }
    return 0;
}

static int open_stream(JsonlOutput *output, Error *error) {
    struct stat status;
    int descriptor = open(output->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor < 0 || fstat(descriptor, &status) != 0 || (output->stream = fdopen(descriptor, "a+b")) == NULL) {
        io_error(output, error);
        if (descriptor >= 0)
            close(descriptor);
        return error->code;
    }
    if (!S_ISREG(status.st_mode))
        return error_set(error, ERROR_ARGUMENT,
                         "%s: is no regular file, so no run could go on from it; " JSONL_OUTPUT_ELSEWHERE,
                         output->path);
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0)
        return error_set(error, ERROR_IO,
                         "%s: another program is writing it; wait for its end or " JSONL_OUTPUT_ELSEWHERE,
                         output->path);
    output->size = status.st_size;
    output->end = end_of_lines(output->stream, output->size);
    return 0;
}

int jsonl_output_open(JsonlOutput *output, const char *path, Error *error) {
    *output = (JsonlOutput){.path = path};
    int status = open_stream(output, error);
    if (status < 0)
        jsonl_output_close(output);
    return status;
}

void jsonl_output_close(JsonlOutput *output) {
    if (output->stream != NULL)
        fclose(output->stream);
    *output = (JsonlOutput){0};
}

int jsonl_output_cut(JsonlOutput *output, Error *error) {
    return output->end < output->size && ftruncate(fileno(output->stream), output->end) != 0 ? io_error(output, error)
                                                                                             : 0;
}
