/* See text_file.h. */
#include "base/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define BYTE_ORDER_MARK "\xEF\xBB\xBF"
#define END_MARK        0x1A /* ^Z: where a text ends for DOS, and for CP/M, which fills a block with them */
#define FIRST_CAPACITY  65536

static int read_descriptor(TextFile *file, int descriptor, size_t max_bytes, Error *error) {
    for (size_t capacity = 0;;) {
        size_t *length = &file->text.length;
        if (*length == capacity) {
            capacity = capacity == 0 ? FIRST_CAPACITY : 2 * capacity;
            char *grown = realloc(file->bytes, capacity);
            if (grown == NULL)
                return error_set(error, ERROR_MEMORY, "%s: out of memory after %zu bytes; give a shorter text",
                                 file->name, *length);
            file->bytes = grown;
        }
        ssize_t n = read(descriptor, file->bytes + *length, capacity - *length);
        if (n < 0 && errno == EINTR)
            return error_set(error, ERROR_INTERRUPTED, "interrupted");
        if (n < 0)
            return error_set(error, ERROR_IO, "%s: %s; name a file with text", file->name, strerror(errno));
        if (n == 0)
            return 0;
        *length += (size_t)n;
        if (*length > max_bytes)
            return error_set(error, ERROR_FORMAT, "%s: is longer than %zu bytes; give a shorter text", file->name,
                             max_bytes);
    }
}

int text_check_encoding(StringView start, const char *name, Error *error) {
    static const struct {
        StringView mark;
        const char *encoding;
    } MARKS[] = {{{"\xFF\xFE\0\0", 4}, "UTF-32"}, /* before UTF-16, whose mark it begins with */
                 {{"\0\0\xFE\xFF", 4}, "UTF-32"},
                 {{"\xFF\xFE", 2}, "UTF-16"},
                 {{"\xFE\xFF", 2}, "UTF-16"}};
    for (size_t i = 0; i < sizeof MARKS / sizeof *MARKS; i++)
        if (sv_starts_with(start, MARKS[i].mark))
            return error_set(error, ERROR_FORMAT,
                             "%s: is %s by its first bytes; save it as UTF-8, or convert it: iconv -f %s -t UTF-8",
                             name, MARKS[i].encoding, MARKS[i].encoding);
    return 0;
}

int text_file_read(TextFile *file, const char *path, size_t max_bytes, Error *error) {
    bool is_stdin = strcmp(path, "-") == 0;
    *file = (TextFile){.name = is_stdin ? "stdin" : path};
    int descriptor = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 && errno == EINTR)
        return error_set(error, ERROR_INTERRUPTED, "interrupted");
    if (descriptor < 0)
        return error_set(error, ERROR_IO, "%s: %s; check the path and its permissions", path, strerror(errno));
    int status = read_descriptor(file, descriptor, max_bytes, error);
    if (!is_stdin)
        close(descriptor);
    file->text.bytes = file->bytes;
    return status < 0 ? status : text_check_encoding(file->text, file->name, error);
}

void text_file_free(TextFile *file) {
    free(file->bytes);
    *file = (TextFile){0};
}

static bool has_mark(StringView text) {
    return sv_starts_with(text, sv(BYTE_ORDER_MARK));
}

static size_t without_end_marks(StringView text) {
    size_t length = text.length;
    while (length > 0 && text.bytes[length - 1] == END_MARK)
        length--;
    return length;
}

/* Makes CRLF LF, in place; returns how many there were. */
static size_t unify_line_ends(char *bytes, size_t *length) {
    size_t n = 0;
    for (size_t i = 0; i < *length; i++)
        if (bytes[i] != '\r' || i + 1 == *length || bytes[i + 1] != '\n')
            bytes[n++] = bytes[i];
    size_t n_crlf = *length - n;
    *length = n;
    return n_crlf;
}

size_t text_file_clean(TextFile *file) {
    size_t mark = has_mark(file->text) ? strlen(BYTE_ORDER_MARK) : 0;
    size_t length = without_end_marks(file->text) - mark;
    size_t n_crlf = unify_line_ends(file->bytes + mark, &length);
    file->text = (StringView){file->bytes + mark, length};
    return n_crlf;
}

StringView text_clean_line(char *line, size_t length) {
    size_t mark = has_mark((StringView){line, length}) ? strlen(BYTE_ORDER_MARK) : 0;
    length = without_end_marks((StringView){line + mark, length - mark});
    unify_line_ends(line + mark, &length);
    if (length > 0 && line[mark + length - 1] == '\r')
        length--;
    return (StringView){line + mark, length};
}

char *text_clean_argument(char *text) {
    StringView clean = text_clean_line(text, strlen(text));
    char *begin = text + (clean.bytes - text);
    begin[clean.length] = '\0';
    return begin;
}
