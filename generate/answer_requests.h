/* --prompts_file: an answer to each request of a file. What goes wrong with one is its result. */
#ifndef STOWKV_ANSWER_REQUESTS_H
#define STOWKV_ANSWER_REQUESTS_H

#include "generate/answer.h"
#include "session/requests.h"

typedef struct RequestCounts {
    size_t n_before; /* results that were there */
    size_t n_done, n_failed;
} RequestCounts;

/* `answer` has begun. Ctrl-C ends it as the end of the file does, with what was done. */
int answer_requests(Answer *answer, Requests *requests, RequestCounts *out, Error *error);

void request_counts_print(const RequestCounts *counts, FILE *stream);
cJSON *request_counts_json(const RequestCounts *counts, const Answer *answer); /* NULL out of memory */

#endif
