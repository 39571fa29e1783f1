/* `--profile NAME`: profiles of several runs of one prompt, and what is written of them to outputs/NAME/.
 *
 *     Profiler profiler = {0};
 *     if (profiler_open(&profiler, "run", &error) < 0) …                 // the folder: outputs/run, or run-2, …
 *     if (profiler_attach(&profiler, &session, &error) < 0) …            // once the model is loaded
 *     for each policy:
 *         profiler_begin(&profiler);
 *         … a generation …
 *         if (profiler_take(&profiler, run_report_json(…), &error) < 0) …
 *     if (profiler_sweep(&profiler, …) < 0) …
 *     if (profiler_write(&profiler, "", &error) < 0) …
 *     profiler_close(&profiler);                                         // before the session */
#ifndef STOWKV_PROFILER_H
#define STOWKV_PROFILER_H

#include "eval/profile/profiled_mode.h"
#include "session/session.h"

#include <signal.h>

typedef struct Profiler {
    char *folder;     /* "outputs/run"; NULL: not open */
    Session *session; /* not owned; NULL: not attached */
    Backend *timed;
    Profile profile; /* of the run under way */
    ProfileRoofs roofs;
    ProfiledMode *modes; /* (n_modes) */
    size_t n_modes;
    cJSON *depths; /* of the sweep; NULL: none */
} Profiler;

/* Makes the folder, under another name than any that is there. ERROR_USAGE for a name that is no plain one. */
int profiler_open(Profiler *profiler, const char *name, Error *error);

/* Measures what the machine can do, and times the model's backend from here on. */
int profiler_attach(Profiler *profiler, Session *session, Error *error);

void profiler_begin(Profiler *profiler);

/* The run in session->context is through; owns `report` in any case. */
int profiler_take(Profiler *profiler, cJSON *report, Error *error);

/* Speed by depth, without being timed; the session's context is not used. The policies of the runs. */
int profiler_sweep(Profiler *profiler, const KvPolicy *policies, size_t n_policies, const char *model_path,
                   const volatile sig_atomic_t *interrupted, Error *error);

/* All files. `cut` says what is missing of an interrupted profile ("" : nothing), for the reader of the report. */
int profiler_write(const Profiler *profiler, const char *cut, Error *error);

/* Has eval/plot.py draw the figures and put them into the report. Where that cannot be, a note says what is missing:
 * the data is complete without them. */
void profiler_draw(const Profiler *profiler, FILE *notes);

void profiler_close(Profiler *profiler); /* twice is fine */

#endif
