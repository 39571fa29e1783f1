/* See text_rows.h. */
#include "eval/perplexity/text_rows.h"

#include "tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

int text_check(StringView text, const char *path, Error *error) {
    size_t invalid = utf8_first_invalid(text), nul = sv_find(text, (StringView){"", 1}, 0);
    if (nul < invalid)
        return error_set(error, ERROR_FORMAT, "%s: byte %zu is NUL, so this is no text; give a text file", path, nul);
    if (invalid < text.length)
        return error_set(error, ERROR_FORMAT, "%s: byte %zu is not UTF-8; convert the file to UTF-8", path, invalid);
    return 0;
}

static bool is_blank(StringView line) {
    size_t at = 0, n;
    while (utf8_starts_with_space((StringView){line.bytes + at, line.length - at}, &n))
        at += n;
    return at == line.length;
}

/* Where the line that begins at `begin` ends, its newline left out: \n, \r\n or \r, as Python reads text. */
static size_t line_end(StringView text, size_t begin) {
    while (begin < text.length && text.bytes[begin] != '\n' && text.bytes[begin] != '\r')
        begin++;
    return begin;
}

static size_t newline_length(StringView text, size_t at) {
    if (at == text.length)
        return 0;
    return text.bytes[at] == '\r' && at + 1 < text.length && text.bytes[at + 1] == '\n' ? 2 : 1;
}

int text_join_rows(StringView text, char **out, size_t *length, Error *error) {
    size_t n_lines = 1;
    for (size_t i = 0; i < text.length; i++)
        n_lines += text.bytes[i] == '\n' || text.bytes[i] == '\r';
    char *joined = malloc(text.length + 2 * n_lines);
    if (joined == NULL)
        return error_memory(error, "the text", text.length + 2 * n_lines);
    size_t n = 0;
    for (size_t begin = 0, next; begin < text.length; begin = next) {
        size_t end = line_end(text, begin), newline = newline_length(text, end);
        StringView line = {text.bytes + begin, end - begin};
        next = end + newline;
        if (begin > 0) {
            memcpy(joined + n, "\n\n", 2);
            n += 2;
        }
        if (is_blank(line))
            continue;
        memcpy(joined + n, line.bytes, line.length);
        n += line.length;
        if (newline > 0)
            joined[n++] = '\n';
    }
    *out = joined;
    *length = n;
    return 0;
}
