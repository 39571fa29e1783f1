/* Files of JSON objects, one a line, read line by line; every error says FILE:LINE.
 *
 *     JsonlReader reader;
 *     if (jsonl_open(&reader, "pairs.jsonl", &error) < 0) …
 *     while ((status = jsonl_next(&reader, &error)) > 0) {
 *         StringView text;
 *         status = jsonl_text(&reader, "prediction", &text, &error);
 *         if (status < 0 && jsonl_settle(&reader, &error) < 0)        // skips the line where the user allows that
 *             break;
 *     }
 *     jsonl_close(&reader);
 *
 * Empty lines are passed over, byte order marks, CRLF and ^Z too; UTF-16 is refused. Memory: the longest line. */
#ifndef STOWKV_JSONL_H
#define STOWKV_JSONL_H

#include "base/error.h"
#include "base/string_view.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct JsonlReader {
    const char *path;
    FILE *stream;
    char *line;
    size_t capacity;
    size_t number; /* of the line at hand, from 1 */
    cJSON *object; /* of that line */
    size_t n_bad;  /* lines skipped so far */
    /* For the caller to set: */
    FILE *notes;      /* bad lines are skipped with a note here; NULL: a bad line is an error */
    const char *cure; /* of such an error; NULL: the flag --skip_bad_lines */
} JsonlReader;

/* "-" is stdin. */
int jsonl_open(JsonlReader *reader, const char *path, Error *error);
void jsonl_close(JsonlReader *reader); /* closing twice is fine */

/* 1 with the next object in reader->object, which lives until the next call; 0 at the end of the file; or an error. */
int jsonl_next(JsonlReader *reader, Error *error);

/* A field that is a text. */
int jsonl_text(JsonlReader *reader, const char *name, StringView *out, Error *error);

/* A field that is a text or an array of texts, at least one: the item itself, for jsonl_texts_get(). */
int jsonl_texts(JsonlReader *reader, const char *name, cJSON **out, Error *error);
size_t jsonl_texts_count(const cJSON *texts);
StringView jsonl_texts_get(const cJSON *texts, size_t index);

/* The field of that name, the last of several; NULL where there is none. */
cJSON *jsonl_field(const cJSON *object, const char *name);

/* An error of the line at hand: "FILE:LINE: " and the formatted text, which says the cause alone. */
int jsonl_fault(const JsonlReader *reader, Error *error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What becomes of an error of the line at hand: skipped with a note (0), or completed by the cure. Errors that are not
 * the line's are returned as they are. */
int jsonl_settle(JsonlReader *reader, Error *error);

#endif
