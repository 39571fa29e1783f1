/* Text as people's editors leave it, and without what they put around it: a UTF-8 byte order mark in front, DOS's ^Z
 * behind, CRLF for line ends. All else is text: a final newline, NUL bytes, lone carriage returns.
 *
 *     TextFile file;
 *     if (text_file_read(&file, "-", TEXT_FILE_MAX, &error) < 0) …         // the bytes; UTF-16 and UTF-32 are refused
 *     text_file_clean(&file);
 *     use(file.text);
 *     text_file_free(&file);
 */
#ifndef STOWKV_TEXT_FILE_H
#define STOWKV_TEXT_FILE_H

#include "base/error.h"
#include "base/string_view.h"

typedef struct TextFile {
    StringView text;  /* into `bytes` */
    const char *name; /* for messages: the path, not owned, or "stdin" */
    char *bytes;      /* owned */
} TextFile;

#define TEXT_FILE_MAX ((size_t)4 << 30) /* bytes: more than any context holds */

/* Reads all of a file of whatever kind; "-" is stdin. The file is freed with text_file_free(), also after an error:
 * ERROR_IO, ERROR_MEMORY, ERROR_FORMAT for text that is not in 8 bits or longer than `max_bytes`, ERROR_INTERRUPTED
 * where a signal ends the wait for input. */
int text_file_read(TextFile *file, const char *path, size_t max_bytes, Error *error);
void text_file_free(TextFile *file); /* freeing twice is fine */

/* Drops what is not text; returns how many line ends were CRLF. */
size_t text_file_clean(TextFile *file);

/* The same for a text of the command line or a line of input, `text` being NUL-terminated or `length` long: a carriage
 * return at its end goes too, for the shell or the line's reader has taken its LF. In place; returns the new text. */
char *text_clean_argument(char *text);
StringView text_clean_line(char *line, size_t length);

/* ERROR_FORMAT for the beginning of a file that is UTF-16 or UTF-32 by its byte order mark. */
int text_check_encoding(StringView start, const char *name, Error *error);

#endif
