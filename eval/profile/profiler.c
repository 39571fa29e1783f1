/* See profiler.h. */
#include "eval/profile/profiler.h"

#include "base/array.h"
#include "eval/bench/arithmetic.h"
#include "eval/bench/roofs.h"
#include "eval/profile/sweep.h"
#include "eval/profile/timed_backend.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MAX_ATTEMPTS 10000 /* of names for the folder */

/* ---- Opening */

static int make_folder(const char *path, Error *error) {
    if (mkdir(path, 0777) == 0)
        return 0;
    return error_set(error, ERROR_IO, "%s: %s; make it writable, or run the program in another folder", path,
                     strerror(errno));
}

static int make_outputs(Error *error) {
    struct stat status;
    return stat(PROFILER_OUTPUTS, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : make_folder(PROFILER_OUTPUTS, error);
}

int profiler_open(Profiler *profiler, const char *name, Error *error) {
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return error_set(error, ERROR_USAGE,
                         "--profile %s: a plain name is wanted; the folder is " PROFILER_OUTPUTS "/NAME", name);
    size_t size = strlen(name) + sizeof PROFILER_OUTPUTS + 16;
    profiler->folder = malloc(size);
    if (profiler->folder == NULL)
        return error_memory(error, "a path", size);
    if (make_outputs(error) < 0)
        return error->code;
    snprintf(profiler->folder, size, PROFILER_OUTPUTS "/%s", name);
    for (int i = 2; mkdir(profiler->folder, 0777) < 0; i++) {
        if (errno != EEXIST || i == MAX_ATTEMPTS)
            return error_set(error, ERROR_IO, "%s: %s; make " PROFILER_OUTPUTS " writable, or choose another name",
                             profiler->folder, strerror(errno));
        snprintf(profiler->folder, size, PROFILER_OUTPUTS "/%s-%d", name, i);
    }
    return 0;
}

int profiler_attach(Profiler *profiler, Session *session, Error *error) {
    Backend *backend = session->model.backend;
    Bandwidth bandwidth;
    if (backend_bandwidth(backend, &bandwidth, error) < 0 ||
        (!bandwidth.by_device &&
         arithmetic_measure(backend->n_threads, backend->level, &profiler->roofs.flops_per_second, error) < 0) ||
        timed_backend_open(&profiler->timed, backend, &profiler->profile, error) < 0)
        return error->code;
    profiler->roofs.bytes_per_second = bandwidth.all_threads;
    profiler->session = session;
    session->model.backend = profiler->timed;
    return 0;
}

/* Contexts that the timed backend opened are closed by the one behind it, which opened them in truth. */
static void detach(Profiler *profiler) {
    if (profiler->timed != NULL)
        profiler->session->model.backend = timed_backend_close(profiler->timed);
    profiler->timed = NULL;
}

void profiler_close(Profiler *profiler) {
    detach(profiler);
    for (size_t i = 0; i < profiler->n_modes; i++)
        profiled_mode_free(&profiler->modes[i]);
    free(profiler->modes);
    profile_free(&profiler->profile);
    cJSON_Delete(profiler->depths);
    cJSON_Delete(profiler->quality);
    cJSON_Delete(profiler->recall);
    free(profiler->folder);
    *profiler = (Profiler){0};
}

/* ---- Measuring */

void profiler_begin(Profiler *profiler) {
    profile_start(&profiler->profile);
}

int profiler_take(Profiler *profiler, cJSON *report, Error *error) {
    ProfiledMode *modes =
        array_for_one_more(profiler->modes, profiler->n_modes, sizeof *modes, "the modes of a profile", error);
    if (modes == NULL) {
        cJSON_Delete(report);
        return ERROR_MEMORY;
    }
    profiler->modes = modes;
    Session *session = profiler->session;
    return profiled_mode_take(&modes[profiler->n_modes++], &profiler->profile, &session->context.cache,
                              &session->model.checkpoint.config, &profiler->roofs, report, error);
}

static double decode_rate(const ProfiledMode *mode) {
    const ProfilePhase *decode = &mode->profile.phases[PROFILE_DECODE];
    return decode->seconds > 0 ? (double)decode->n_tokens / decode->seconds : 0;
}

/* Speed by depth. */
static int measure_depths(Profiler *profiler, const ProfilerRest *rest, Error *error) {
    SizeList depths;
    double slowest = 0;
    for (size_t i = 0; i < profiler->n_modes; i++) {
        double rate = decode_rate(&profiler->modes[i]);
        slowest = i == 0 || rate < slowest ? rate : slowest;
    }
    sweep_depths(profiler->session->context.n_ctx, slowest, &depths);
    return sweep_run(&profiler->session->model, rest->options->checkpoint_path, rest->policies->items,
                     rest->policies->count, profiler->session->context.n_ctx, &depths, rest->interrupted,
                     &profiler->depths, error);
}

/* A part of quality, under the profile's policies with the full cache in front. */
static int measure_policies(Profiler *profiler, const ProfilerRest *rest,
                            int (*measure)(const QualityTask *task, cJSON **out, Error *error), cJSON **out,
                            Error *error) {
    PolicyList policies;
    int status = policies_from_options(&rest->options->kv, rest->compares, &policies, error);
    if (status == 0) {
        policy_list_put_full_first(&policies);
        QualityTask task = {profiler->session, rest->options, rest->text, rest->prompt, &policies, rest->interrupted};
        status = measure(&task, out, error);
    }
    policy_list_free(&policies);
    return status;
}

static int measure_quality(Profiler *profiler, const ProfilerRest *rest, Error *error) {
    return measure_policies(profiler, rest, quality_measure, &profiler->quality, error);
}

static int measure_recall(Profiler *profiler, const ProfilerRest *rest, Error *error) {
    return measure_policies(profiler, rest, quality_recall, &profiler->recall, error);
}

typedef int Measure(Profiler *profiler, const ProfilerRest *rest, Error *error);

/* What is missing goes into `cut`, as a sentence without its end. */
static int measure_rest(Profiler *profiler, const ProfilerRest *rest, char *cut, size_t size, Error *error) {
    const struct {
        const char *what;
        Measure *measure;
        bool wanted;
    } PARTS[] = {{"speed by depth", measure_depths, true},
                 {"quality", measure_quality, rest->quality},
                 {"recall", measure_recall, rest->quality}};
    detach(profiler);
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        if (!PARTS[i].wanted || PARTS[i].measure(profiler, rest, error) == 0)
            continue;
        if (error->code == ERROR_INTERRUPTED)
            snprintf(cut, size, "it was interrupted while %s was measured", PARTS[i].what);
        else
            snprintf(cut, size, "%s could not be measured: %s", PARTS[i].what, error->message);
        return error->code;
    }
    return 0;
}

int profiler_finish(Profiler *profiler, const ProfilerRest *rest, Error *error) {
    char cut[sizeof error->message + 64] = "";
    Error failure = {0};
    if (*rest->interrupted)
        snprintf(cut, sizeof cut, "it was interrupted in run %zu of %zu", profiler->n_modes, rest->policies->count);
    else
        measure_rest(profiler, rest, cut, sizeof cut, error);
    if (profiler_write(profiler, cut, &failure) == 0) {
        fprintf(stderr, "profile: %s/report.html\n", profiler->folder);
        profiler_draw(profiler, stderr);
    }
    return error_keep_first(error, &failure);
}
