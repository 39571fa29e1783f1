/* See compare.h. */
#include "generate/compare.h"

#include "session/program.h"
#include "session/run_report.h"

#include <stdio.h>
#include <stdlib.h>

int comparison_open(Comparison *comparison, Error *error) {
    if (comparison->profile == NULL || profiler_open(&comparison->profiler, comparison->profile, error) == 0)
        return 0;
    if (error->code == ERROR_USAGE)
        return error->code;
    comparison->no_profile = *error;
    profiler_close(&comparison->profiler);
    return 0;
}

int comparison_attach(Comparison *comparison, Session *session, Error *error) {
    const char *text = comparison->profile_text;
    if (text != NULL && ppl_text_read(&comparison->text, text, QUALITY_DEFINITION, session->tokenizer, error) < 0)
        return error->code;
    return comparison->profiler.folder == NULL ? 0 : profiler_attach(&comparison->profiler, session, error);
}

/* Its report has two owners where there is a profile. */
static int run_one(Comparison *comparison, Answer *answer, const KvPolicy *policy, StringView prompt, cJSON *reports,
                   Error *error) {
    char heading[32];
    snprintf(heading, sizeof heading, "--- %s ---\n", kv_policy_mode(policy));
    if (answer_print(answer, sv(heading), error) < 0 || answer_begin(answer, policy, error) < 0)
        return error->code;
    profiler_begin(&comparison->profiler);
    int status = answer_prompt(answer, prompt, error);
    if (status == 0)
        status = answer_print(answer, sv("\n\n"), error);
    cJSON *report = run_report_json(&answer->run, answer->options->checkpoint_path);
    cJSON_AddItemToArray(reports, report);
    if (status < 0 || comparison->profiler.folder == NULL)
        return status;
    return profiler_take(&comparison->profiler, cJSON_Duplicate(report, true), error);
}

/* All runs, and the table. */
static int run_all(Comparison *comparison, Answer *answer, StringView prompt, cJSON *reports, Error *error) {
    const PolicyList *policies = &comparison->policies;
    RunSummary *summaries = calloc(policies->count, sizeof *summaries);
    if (summaries == NULL)
        return error_memory(error, "the summaries", policies->count * sizeof *summaries);
    int status = 0;
    size_t n = 0;
    for (; n < policies->count && status == 0 && !program_interrupted; n++) {
        status = run_one(comparison, answer, &policies->items[n], prompt, reports, error);
        summaries[n] = run_summarise(&answer->run);
    }
    if (status == 0 && answer->prints) {
        run_summaries_print(summaries, n, stdout);
        status = program_flush_stdout(error);
    }
    seed_print(&answer->sampler->options, stderr);
    free(summaries);
    return status;
}

static int finish_profile(Comparison *comparison, const Answer *answer, Error *error) {
    const ProfilerRest rest = {.options = answer->options,
                               .compares = comparison->all_modes,
                               .policies = &comparison->policies,
                               .quality = comparison->profile_quality,
                               .text = &comparison->text,
                               .prompt = &answer->run.prompt,
                               .interrupted = &program_interrupted};
    if (comparison->no_profile.code < 0)
        *error = comparison->no_profile;
    else if (comparison->profiler.folder != NULL)
        profiler_finish(&comparison->profiler, &rest, error);
    return error->code;
}

int comparison_run(Comparison *comparison, Answer *answer, StringView prompt, OutputFile *json, Error *error) {
    cJSON *root = cJSON_CreateObject(), *reports = cJSON_AddArrayToObject(root, "modes");
    int status = run_all(comparison, answer, prompt, reports, error);
    if (status == 0 && json != NULL)
        status = json_commit(root, json, error);
    else
        cJSON_Delete(root);
    Error failure = {0};
    if ((status == 0 || status == ERROR_INTERRUPTED) && finish_profile(comparison, answer, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

void comparison_close(Comparison *comparison) {
    profiler_close(&comparison->profiler);
    ppl_text_free(&comparison->text);
    policy_list_free(&comparison->policies);
}
