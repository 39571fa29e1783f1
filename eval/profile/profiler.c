/* See profiler.h. */
#include "eval/profile/profiler.h"

#include "base/array.h"
#include "base/output_file.h"
#include "eval/bench/arithmetic.h"
#include "eval/bench/roofs.h"
#include "eval/profile/report_html.h"
#include "eval/profile/sweep.h"
#include "eval/profile/timed_backend.h"
#include "eval/profile/trace.h"
#include "session/run_report.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUTS      "outputs"
#define MAX_ATTEMPTS 10000

/* ---- Opening */

static int make_folder(const char *path, Error *error) {
    if (mkdir(path, 0777) == 0)
        return 0;
    return error_set(error, ERROR_IO, "%s: %s; make it writable, or run the program in another folder", path,
                     strerror(errno));
}

static int make_outputs(Error *error) {
    struct stat status;
    return stat(OUTPUTS, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : make_folder(OUTPUTS, error);
}

int profiler_open(Profiler *profiler, const char *name, Error *error) {
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return error_set(error, ERROR_USAGE, "--profile %s: a plain name is wanted; the folder is " OUTPUTS "/NAME",
                         name);
    size_t size = strlen(name) + sizeof OUTPUTS + 16;
    profiler->folder = malloc(size);
    if (profiler->folder == NULL)
        return error_memory(error, "a path", size);
    if (make_outputs(error) < 0)
        return error->code;
    snprintf(profiler->folder, size, OUTPUTS "/%s", name);
    for (int i = 2; mkdir(profiler->folder, 0777) < 0; i++) {
        if (errno != EEXIST || i == MAX_ATTEMPTS)
            return error_set(error, ERROR_IO, "%s: %s; make " OUTPUTS " writable, or choose another name",
                             profiler->folder, strerror(errno));
        snprintf(profiler->folder, size, OUTPUTS "/%s-%d", name, i);
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

int profiler_sweep(Profiler *profiler, const KvPolicy *policies, size_t n_policies, const char *model_path,
                   const volatile sig_atomic_t *interrupted, Error *error) {
    SizeList depths;
    double slowest = 0;
    for (size_t i = 0; i < profiler->n_modes; i++) {
        double rate = decode_rate(&profiler->modes[i]);
        slowest = i == 0 || rate < slowest ? rate : slowest;
    }
    sweep_depths(profiler->session->context.n_ctx, slowest, &depths);
    detach(profiler);
    return sweep_run(&profiler->session->model, model_path, policies, n_policies, profiler->session->context.n_ctx,
                     &depths, interrupted, &profiler->depths, error);
}

/* ---- Writing */

/* The summary, which refers to what the modes own. */
static cJSON *summary_json(const Profiler *profiler, const char *cut) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "name", profiler->folder + sizeof OUTPUTS);
    cJSON_AddBoolToObject(root, "complete", cut[0] == '\0');
    if (cut[0] != '\0')
        cJSON_AddStringToObject(root, "missing", cut);
    cJSON_AddNumberToObject(root, "bytes_per_second_peak", profiler->roofs.bytes_per_second);
    if (profiler->roofs.flops_per_second > 0)
        cJSON_AddNumberToObject(root, "flops_per_second_peak", profiler->roofs.flops_per_second);
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < profiler->n_modes; i++)
        cJSON_AddItemReferenceToArray(modes, profiler->modes[i].report);
    if (profiler->depths != NULL)
        cJSON_AddItemReferenceToObject(root, "depths", profiler->depths);
    return root;
}

typedef int WriteFile(const Profiler *profiler, cJSON *summary, FILE *stream, Error *error);

static int write_summary(const Profiler *profiler, cJSON *summary, FILE *stream, Error *error) {
    (void)profiler;
    char *text = cJSON_Print(summary);
    if (text == NULL)
        return error_memory(error, "the summary", 0);
    fprintf(stream, "%s\n", text);
    free(text);
    return 0;
}

static int write_steps(const Profiler *profiler, cJSON *summary, FILE *stream, Error *error) {
    (void)summary, (void)error;
    profiled_modes_csv(profiler->modes, profiler->n_modes, stream);
    return 0;
}

static int write_trace(const Profiler *profiler, cJSON *summary, FILE *stream, Error *error) {
    (void)summary, (void)error;
    trace_begin(stream);
    for (size_t i = 0; i < profiler->n_modes; i++)
        trace_add(&profiler->modes[i], (int)i + 1, stream);
    trace_end(stream);
    return 0;
}

static int write_html(const Profiler *profiler, cJSON *summary, FILE *stream, Error *error) {
    (void)profiler, (void)error;
    report_html(summary, stream);
    return 0;
}

static int write_file(const Profiler *profiler, cJSON *summary, const char *name, WriteFile *write, Error *error) {
    OutputFile file = {0};
    size_t size = strlen(profiler->folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path == NULL)
        return error_memory(error, "a path", size);
    snprintf(path, size, "%s/%s", profiler->folder, name);
    int status = output_file_open(&file, path, error);
    if (status == 0)
        status = write(profiler, summary, file.stream, error);
    if (status == 0)
        status = output_file_commit(&file, error);
    output_file_discard(&file);
    free(path);
    return status;
}

int profiler_write(const Profiler *profiler, const char *cut, Error *error) {
    static const struct {
        const char *name;
        WriteFile *write;
    } FILES[] = {{"summary.json", write_summary},
                 {"steps.csv", write_steps},
                 {"trace.json", write_trace},
                 {"report.html", write_html}};
    cJSON *summary = summary_json(profiler, cut);
    int status = 0;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES && status == 0; i++)
        status = write_file(profiler, summary, FILES[i].name, FILES[i].write, error);
    cJSON_Delete(summary);
    return status;
}

/* ---- Drawing */

/* In the folder that this was built in, or where it was installed. */
static const char *plot_program(void) {
    static const char *const PATHS[] = {STOWKV_SOURCE_DIR "/eval/plot.py", STOWKV_DATA_DIR "/plot.py"};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++)
        if (access(PATHS[i], R_OK) == 0)
            return PATHS[i];
    return NULL;
}

/* Its exit status; -1 where it did not come to one. */
static int run_python(const char *script, const char *folder) {
    extern char **environ;
    char *arguments[] = {"python3", (char *)script, (char *)folder, NULL};
    pid_t child;
    int status;
    if (posix_spawnp(&child, arguments[0], NULL, NULL, arguments, environ) != 0)
        return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void profiler_draw(const Profiler *profiler, FILE *notes) {
    const char *script = plot_program();
    if (script == NULL) {
        fprintf(notes,
                "note: no figures: eval/plot.py is neither in " STOWKV_SOURCE_DIR " nor in " STOWKV_DATA_DIR "\n");
        return;
    }
    if (run_python(script, profiler->folder) != 0)
        fprintf(notes,
                "note: no figures; install matplotlib (apt-get install python3-matplotlib), then: python3 %s %s\n",
                script, profiler->folder);
}
