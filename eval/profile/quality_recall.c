/* Recall in a profile; see quality.h. */
#include "eval/profile/quality.h"
#include "eval/recall/distances.h"
#include "eval/recall/report.h"

static SizeList distances_for(size_t n_ctx) {
    static const size_t DISTANCES[] = {64, 256, 1024};
    size_t largest = recall_largest_distance(QUALITY_SEGMENT, n_ctx);
    SizeList list = {.count = 0};
    for (size_t i = 0; i < sizeof DISTANCES / sizeof *DISTANCES; i++)
        if (DISTANCES[i] <= largest)
            list.items[list.count++] = DISTANCES[i];
    return list;
}

static int measure(const QualityTask *task, RecallRun *run, Error *error) {
    size_t n_ctx;
    if (session_n_ctx(task->options, &task->session->model.checkpoint.config, &n_ctx, error) < 0)
        return error->code;
    *run = (RecallRun){.task = {.distances = distances_for(n_ctx),
                                .segment = QUALITY_SEGMENT,
                                .n_samples = QUALITY_RECALL_SAMPLES,
                                .seed = QUALITY_SEED},
                       .interrupted = task->interrupted};
    if (run->task.distances.count == 0)
        return error_set(error, ERROR_ARGUMENT, "a context of %zu tokens holds no segment twice; use a larger --n_ctx",
                         n_ctx);
    context_close(&task->session->context); /* an evaluation has its own */
    if (recall_run_open(run, task->session, n_ctx, task->policies, error) < 0)
        return error->code;
    return evaluation_run(&run->evaluation, error);
}

int quality_recall(const QualityTask *task, cJSON **out, Error *error) {
    RecallRun run = {.n_batch = 0};
    int status = measure(task, &run, error);
    *out = NULL;
    if (status == ERROR_ARGUMENT) {
        *out = cJSON_CreateObject();
        cJSON_AddStringToObject(*out, "left_out", error->message);
        *error = (Error){0};
        status = 0;
    } else if (recall_run_samples(&run) > 0)
        *out = recall_json(&run.evaluation, &run.task, task->options->checkpoint_path);
    recall_run_close(&run);
    return status;
}
