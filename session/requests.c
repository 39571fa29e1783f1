/* See requests.h. */
#include "session/requests.h"

#include "base/text_file.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* UTF-16 is no matter of a line. */
static int check_encoding(const JsonlReader *reader, Error *error) {
    StringView start = {reader->line, strnlen(reader->line, 4)};
    return reader->number == 1 ? text_check_encoding(start, reader->path, error) : 0;
}

static int take_id(Requests *requests, Error *error) {
    const JsonlReader *reader = &requests->reader;
    const cJSON *given = cJSON_IsObject(reader->object) ? jsonl_field(reader->object, "id") : NULL;
    cJSON_Delete(requests->id);
    requests->id = cJSON_IsString(given) || cJSON_IsNumber(given) ? cJSON_Duplicate(given, false)
                                                                  : cJSON_CreateNumber((double)reader->number);
    return requests->id != NULL ? 0 : error_memory(error, "a request", 0);
}

int requests_next(Requests *requests, Request *out, Error *error) {
    JsonlReader *reader = &requests->reader;
    *out = (Request){.fault = {0}};
    int status = jsonl_next(reader, &out->fault);
    if (status == 0)
        return 0;
    if (status < 0 && (status != ERROR_FORMAT || check_encoding(reader, error) < 0)) {
        *error = error->code < 0 ? *error : out->fault;
        return error->code;
    }
    if (status > 0)
        jsonl_text(reader, "prompt", &out->prompt, &out->fault);
    snprintf(requests->fingerprint, sizeof requests->fingerprint, "%016llx",
             (unsigned long long)XXH3_64bits_withSeed(out->prompt.bytes, out->prompt.length, requests->settings));
    return take_id(requests, error) < 0 ? error->code : 1;
}

int requests_answer(Requests *requests, cJSON *result, Error *error) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddItemToObject(line, "id", cJSON_Duplicate(requests->id, false));
    while (result != NULL && result->child != NULL) {
        cJSON *field = cJSON_DetachItemViaPointer(result, result->child);
        cJSON_AddItemToObject(line, field->string, field);
    }
    cJSON_Delete(result);
    cJSON_AddStringToObject(line, "fingerprint", requests->fingerprint);
    int status = jsonl_output_add(&requests->output, line, error);
    cJSON_Delete(line);
    return status;
}

/* ---- What is done already */

static int not_results(const Requests *requests, const JsonlReader *done, Error *error) {
    return error_set(
        error, ERROR_FORMAT,
        "%s:%zu: is not the result of the line of %s that comes there, and stays as it is; run it with its "
        "own prompts or " JSONL_OUTPUT_ELSEWHERE,
        requests->output.path, done->number, requests->reader.path);
}

static int other_settings(const Requests *requests, const JsonlReader *done, Error *error) {
    return error_set(error, ERROR_FORMAT,
                     "%s:%zu: was made of another prompt, or with other flags (model, policy, seed, ...), and stays as "
                     "it is; give the same ones or " JSONL_OUTPUT_ELSEWHERE,
                     requests->output.path, done->number);
}

/* The request that comes next must be the one that this line answers. */
static int skip_answered(Requests *requests, const JsonlReader *done, Error *error) {
    Request request;
    int status = requests_next(requests, &request, error);
    if (status < 0)
        return status;
    const cJSON *id = jsonl_field(done->object, "id");
    if (status == 0 || !cJSON_Compare(id, requests->id, true) ||
        (jsonl_field(done->object, "text") == NULL && jsonl_field(done->object, "error") == NULL))
        return not_results(requests, done, error);
    const cJSON *fingerprint = jsonl_field(done->object, "fingerprint");
    if (!cJSON_IsString(fingerprint) || strcmp(fingerprint->valuestring, requests->fingerprint) != 0)
        return other_settings(requests, done, error);
    requests->n_before++;
    return 0;
}

static int skip_done(Requests *requests, Error *error) {
    JsonlReader done;
    int status = 0;
    if (jsonl_open(&done, requests->output.path, error) < 0)
        return error->code;
    while (status == 0 && ftello(done.stream) < requests->output.end) {
        status = jsonl_next(&done, error);
        if (status == ERROR_FORMAT)
            status = not_results(requests, &done, error);
        if (status > 0)
            status = skip_answered(requests, &done, error);
    }
    jsonl_close(&done);
    return status;
}

int requests_open(Requests *requests, const char *prompts_path, const char *output_path, const char *settings,
                  Error *error) {
    *requests = (Requests){.settings = XXH3_64bits(settings, strlen(settings))};
    int status = jsonl_open(&requests->reader, prompts_path, error);
    requests->reader.cure = "correct the line";
    if (status == 0)
        status = jsonl_output_open(&requests->output, output_path, error);
    if (status == 0)
        status = skip_done(requests, error);
    if (status == 0)
        status = jsonl_output_cut(&requests->output, error);
    if (status < 0)
        requests_close(requests);
    return status;
}

void requests_close(Requests *requests) {
    jsonl_close(&requests->reader);
    jsonl_output_close(&requests->output);
    cJSON_Delete(requests->id);
    *requests = (Requests){0};
}
