/* What a profile leaves in its folder; see profiler.h. */
#include "base/output_file.h"
#include "eval/plot_program.h"
#include "eval/profile/profiler.h"
#include "eval/profile/report_html.h"
#include "eval/profile/trace.h"

#include <stdlib.h>

/* ---- Writing */

/* The summary, which refers to what the modes own. */
static cJSON *summary_json(const Profiler *profiler, const char *cut) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "name", profiler->folder + sizeof PROFILER_OUTPUTS);
    cJSON_AddBoolToObject(root, "complete", cut[0] == '\0');
    if (cut[0] != '\0')
        cJSON_AddStringToObject(root, "missing", cut);
    cJSON_AddNumberToObject(root, "bytes_per_second_peak", profiler->roofs.bytes_per_second);
    if (profiler->roofs.flops_per_second > 0)
        cJSON_AddNumberToObject(root, "flops_per_second_peak", profiler->roofs.flops_per_second);
    cJSON *modes = cJSON_AddArrayToObject(root, "modes");
    for (size_t i = 0; i < profiler->n_modes; i++)
        cJSON_AddItemReferenceToArray(modes, profiler->modes[i].report);
    const struct {
        const char *name;
        cJSON *part;
    } PARTS[] = {{"depths", profiler->depths}, {"quality", profiler->quality}, {"recall", profiler->recall}};
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        if (PARTS[i].part != NULL)
            cJSON_AddItemReferenceToObject(root, PARTS[i].name, PARTS[i].part);
    return root;
}

/* What the files are made of: summary.json's text, and that as it is read. Reports hold JSON that is only printed. */
typedef struct ProfileFiles {
    const Profiler *profiler;
    char *text;
    cJSON *summary;
} ProfileFiles;

typedef void WriteFile(const ProfileFiles *files, FILE *stream);

static void write_summary(const ProfileFiles *files, FILE *stream) {
    fprintf(stream, "%s\n", files->text);
}

static void write_steps(const ProfileFiles *files, FILE *stream) {
    profiled_modes_csv(files->profiler->modes, files->profiler->n_modes, stream);
}

static void write_trace(const ProfileFiles *files, FILE *stream) {
    trace_begin(stream);
    for (size_t i = 0; i < files->profiler->n_modes; i++)
        trace_add(&files->profiler->modes[i], (int)i + 1, stream);
    trace_end(stream);
}

static void write_html(const ProfileFiles *files, FILE *stream) {
    report_html(files->summary, stream);
}

static int write_file(const ProfileFiles *files, const char *name, WriteFile *write, Error *error) {
    OutputFile file = {0};
    size_t size = strlen(files->profiler->folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path == NULL)
        return error_memory(error, "a path", size);
    snprintf(path, size, "%s/%s", files->profiler->folder, name);
    int status = output_file_open(&file, path, error);
    if (status == 0) {
        write(files, file.stream);
        status = output_file_commit(&file, error);
    }
    output_file_discard(&file);
    free(path);
    return status;
}

/* Where one cannot be written, the others are. */
static int write_files(const ProfileFiles *files, Error *error) {
    static const struct {
        const char *name;
        WriteFile *write;
    } FILES[] = {{"summary.json", write_summary},
                 {"steps.csv", write_steps},
                 {"trace.json", write_trace},
                 {"report.html", write_html}};
    if (files->text == NULL || files->summary == NULL)
        return error_memory(error, "the summary", 0);
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        Error failure = {0};
        write_file(files, FILES[i].name, FILES[i].write, &failure);
        error_keep_first(error, &failure);
    }
    return error->code;
}

int profiler_write(const Profiler *profiler, const char *cut, Error *error) {
    cJSON *summary = summary_json(profiler, cut);
    ProfileFiles files = {.profiler = profiler, .text = cJSON_Print(summary)};
    files.summary = files.text != NULL ? cJSON_Parse(files.text) : NULL;
    int status = write_files(&files, error);
    cJSON_Delete(files.summary);
    cJSON_Delete(summary);
    free(files.text);
    return status;
}

/* ---- Drawing */

void profiler_draw(const Profiler *profiler, FILE *notes) {
    plot_run((const char *[]){profiler->folder, NULL}, notes);
}
