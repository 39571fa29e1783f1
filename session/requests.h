/* Many prompts from a file of JSON lines, {"id": 7, "prompt": "Once"}, and their results in another, in the same order.
 * The same command goes on where it was interrupted: each result has a fingerprint of its prompt and of the settings
 * that it was made with, and where those are others nothing is gone on with.
 *
 *     Requests requests;
 *     Request request;
 *     if (requests_open(&requests, "in.jsonl", "out.jsonl", settings, &error) < 0) …
 *     while ((status = requests_next(&requests, &request, &error)) > 0)
 *         … request.fault says what is wrong with the line, or request.prompt is a text …
 *         requests_answer(&requests, result, &error);        // an object; it gets the request's id and fingerprint
 *     requests_close(&requests);
 */
#ifndef STOWKV_REQUESTS_H
#define STOWKV_REQUESTS_H

#include "base/string_view.h"
#include "session/jsonl.h"
#include "session/jsonl_output.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Request {
    StringView prompt; /* until the next request */
    Error fault;       /* code 0: none */
} Request;

typedef struct Requests {
    JsonlReader reader;
    JsonlOutput output;
    size_t n_before;             /* results that were there when the output was opened */
    uint64_t settings;           /* a hash */
    cJSON *id;                   /* of the request at hand, owned */
    char fingerprint[8 * 2 + 1]; /* of the request at hand */
} Requests;

/* Reads what is done already: an error where it is not the beginning of these prompts' results. `settings`: all else
 * that results follow from, as a text. */
int requests_open(Requests *requests, const char *prompts_path, const char *output_path, const char *settings,
                  Error *error);
void requests_close(Requests *requests); /* closing twice is fine */

/* 1: there is a request; 0: the file ends. A line without an "id" has its number in the file for one. */
int requests_next(Requests *requests, Request *out, Error *error);

/* Takes `result`, puts the id in front, the fingerprint behind, and writes it as a line. */
int requests_answer(Requests *requests, cJSON *result, Error *error);

#endif
