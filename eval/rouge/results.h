/* The texts of a long evaluation, saved one by one, so that the same command goes on where it was interrupted. A file
 * of JSON lines: the first says what the texts were made with, each other is a record of one sample and policy
 * (record.h). A line that was not finished when the program was killed is dropped.
 *
 *     RougeResults results;
 *     if (rouge_results_open(&results, "texts.jsonl", header, &error) < 0) …
 *     if (!rouge_results_find(&results, "f16:*", line, &record) &&
 *         rouge_results_add(&results, &made, reference, &error) < 0) …
 *     rouge_results_close(&results);
 */
#ifndef STOWKV_ROUGE_RESULTS_H
#define STOWKV_ROUGE_RESULTS_H

#include "eval/rouge/record.h"
#include "session/jsonl_output.h"

typedef struct RougeResult {
    size_t line;        /* of the sample */
    const char *policy; /* into the object */
    cJSON *object;      /* which is a record */
} RougeResult;

typedef struct RougeResults {
    JsonlOutput output;
    RougeResult *items; /* (count) records that the file had when it was opened, sorted by policy and line */
    size_t count;
} RougeResults;

/* Creates the file with this header, or reads what is there. An error where the file has another header (the message
 * says what differs), is no such file, or is being written by another program: then it stays as it is. */
int rouge_results_open(RougeResults *results, const char *path, const cJSON *header, Error *error);
void rouge_results_close(RougeResults *results); /* closing twice is fine */

/* The record that the file had when it was opened: its texts live as long as the results. False where it had none. */
bool rouge_results_find(const RougeResults *results, const char *policy, size_t line, RougeRecord *out);

/* Appends a record, with the sample's references for those who read the file; it is on its way to the disk when this
 * returns. */
int rouge_results_add(RougeResults *results, const RougeRecord *record, const cJSON *reference, Error *error);

/* Adds NAME, NAME_bytes and NAME_xxh3 to a header: a file's name, size and hash. What is no regular file has its
 * name alone. */
int rouge_results_identify(cJSON *header, const char *name, const char *path, Error *error);

/* The hash of a file or a prompt as texts are compared by. */
void rouge_hash(const void *data, size_t size, char out[ROUGE_HASH_TEXT]);

#endif
