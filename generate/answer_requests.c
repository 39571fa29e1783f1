/* See answer_requests.h. */
#include "generate/answer_requests.h"

#include "base/machine/clock.h"
#include "session/json_text.h"
#include "session/run_report.h"
#include "session/signals.h"

static cJSON *result_json(const Generation *run, double seconds) {
    cJSON *result = cJSON_CreateObject();
    json_add_text(result, "text", (StringView){run->text, run->text_length});
    cJSON_AddNumberToObject(result, "n_prompt", (double)run->prompt.count);
    cJSON_AddNumberToObject(result, "n_generated", (double)run->generated.count);
    cJSON_AddNumberToObject(result, "prefix_hit", run->reuse != NULL ? (double)run->reuse->restored.n_tokens : 0);
    cJSON_AddNumberToObject(result, "ms", seconds * 1e3);
    return result;
}

/* What would go wrong with all requests is an error, and no result. */
static int answer_request(Answer *answer, Requests *requests, const Request *request, RequestCounts *counts,
                          Error *error) {
    Error fault = request->fault;
    double start = clock_seconds();
    answer_begin_unprinted(answer);
    int status = fault.code < 0 ? fault.code : answer_prompt(answer, request->prompt, &fault);
    if (status == ERROR_INTERRUPTED || status == ERROR_MEMORY || program_interrupted) {
        *error = fault.code < 0 ? fault : (Error){.code = ERROR_INTERRUPTED};
        return error->code;
    }
    cJSON *result = NULL;
    if (status == 0) {
        result = result_json(&answer->run, clock_seconds() - start);
    } else {
        result = cJSON_CreateObject();
        json_add_string(result, "error", fault.message);
        counts->n_failed++;
    }
    return requests_answer(requests, result, error);
}

int answer_requests(Answer *answer, Requests *requests, RequestCounts *out, Error *error) {
    Request request;
    int status;
    *out = (RequestCounts){.n_before = requests->n_before};
    while ((status = requests_next(requests, &request, error)) > 0) {
        if (request.fault.code == 0)
            prompt_note_invalid(request.prompt, "a prompt");
        status = answer_request(answer, requests, &request, out, error);
        if (status < 0)
            break;
        out->n_done++;
    }
    return status == ERROR_INTERRUPTED ? 0 : status;
}

void request_counts_print(const RequestCounts *counts, FILE *stream) {
    fprintf(stream, "%zu requests done, %zu of them failed; %zu were done before\n", counts->n_done, counts->n_failed,
            counts->n_before);
}

cJSON *request_counts_json(const RequestCounts *counts, const Answer *answer) {
    cJSON *root = cJSON_CreateObject();
    json_add_string(root, "model", answer->options->checkpoint_path);
    policy_json(root, &answer->session->context.cache.layout.policy);
    cJSON_AddNumberToObject(root, "n_before", (double)counts->n_before);
    cJSON_AddNumberToObject(root, "n_done", (double)counts->n_done);
    cJSON_AddNumberToObject(root, "n_failed", (double)counts->n_failed);
    if (answer->reuse != NULL)
        prefix_reuse_json(answer->reuse, root);
    return root;
}
