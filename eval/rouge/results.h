/* The texts of a long evaluation, saved one by one, so that the same command goes on where it was interrupted. A file
 * of JSON lines: the first says what the texts were made with, each other is a record of one sample and policy. A line
 * that was not finished when the program was killed is dropped.
 *
 *     RougeResults results;
 *     if (rouge_results_open(&results, "texts.jsonl", header, &error) < 0) …
 *     const cJSON *record = rouge_results_find(&results, "f16:*", line);
 *     if (record == NULL && rouge_results_add(&results, made, &error) < 0) …
 *     rouge_results_close(&results);
 */
#ifndef STOWKV_ROUGE_RESULTS_H
#define STOWKV_ROUGE_RESULTS_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct RougeResult {
    size_t line;        /* of the sample */
    const char *policy; /* into the record */
    cJSON *record;      /* has numbers and texts of the right kinds: see rouge_results_open() */
} RougeResult;

typedef struct RougeResults {
    const char *path;
    FILE *stream;
    RougeResult *items; /* that were there, sorted by policy and line */
    size_t count;
} RougeResults;

/* Creates the file with this header, or reads what is there. An error where the file has another header (the message
 * says what differs), is no such file, or is being written by another program: then it stays as it is. Each record must
 * have every field of `example`, of the same kind. */
int rouge_results_open(RougeResults *results, const char *path, const cJSON *header, const cJSON *example,
                       Error *error);
void rouge_results_close(RougeResults *results); /* closing twice is fine */

/* The record that was there, or NULL. */
const cJSON *rouge_results_find(const RougeResults *results, const char *policy, size_t line);

/* Appends a record; it is on its way to the disk when this returns. */
int rouge_results_add(RougeResults *results, const cJSON *record, Error *error);

/* Adds NAME, NAME_bytes and NAME_xxh3 to a header: a file's name, size and hash. What is no regular file has its
 * name alone. */
int rouge_results_identify(cJSON *header, const char *name, const char *path, Error *error);

/* Adds a 64-bit number, which does not fit JSON's, as 16 hexadecimal digits. */
void rouge_results_add_hash(cJSON *object, const char *name, unsigned long long hash);

#endif
