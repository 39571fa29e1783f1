/* A file of JSON objects, one a line, that a long run adds to, so that the same command can go on where it was
 * interrupted. Each line is written at once: a program that is killed leaves whole lines, and perhaps the beginning of
 * one, which is dropped when the file is opened the next time.
 *
 *     JsonlOutput output;
 *     if (jsonl_output_open(&output, path, &error) < 0) …
 *     … read the output.end bytes that are whole lines; nothing was changed yet …
 *     if (jsonl_output_cut(&output, &error) < 0 || jsonl_output_add(&output, object, &error) < 0) …
 *     jsonl_output_close(&output);
 */
#ifndef STOWKV_JSONL_OUTPUT_H
#define STOWKV_JSONL_OUTPUT_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <sys/types.h>

/* The cure for a file that cannot be gone on with. */
#define JSONL_OUTPUT_ELSEWHERE "name another file with --output"

typedef struct JsonlOutput {
    const char *path; /* not owned */
    FILE *stream;
    off_t size; /* in bytes, when it was opened */
    off_t end;  /* of its last whole line then */
} JsonlOutput;

/* Creates the file or opens what is there, for this program alone: an error where another has it, or it is no regular
 * file. */
int jsonl_output_open(JsonlOutput *output, const char *path, Error *error);
void jsonl_output_close(JsonlOutput *output); /* closing twice is fine */

/* Drops what stands behind the last whole line. */
int jsonl_output_cut(JsonlOutput *output, Error *error);

/* Appends a line; it is on its way to the disk when this returns. One that does not fit is taken back. */
int jsonl_output_add_text(JsonlOutput *output, const char *text, Error *error);
int jsonl_output_add(JsonlOutput *output, const cJSON *object, Error *error); /* NULL: out of memory */

#endif
