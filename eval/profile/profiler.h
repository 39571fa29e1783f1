/* `--profile NAME`: profiles of several runs of one prompt, and what is written of them to outputs/NAME/.
 *
 *     Profiler profiler = {0};
 *     if (profiler_open(&profiler, "run", &error) < 0) …                 // the folder: outputs/run, or run-2, …
 *     if (profiler_attach(&profiler, &session, &error) < 0) …            // once the model is loaded
 *     for each policy:
 *         profiler_begin(&profiler);
 *         … a generation …
 *         if (profiler_take(&profiler, run_report_json(…), &error) < 0) …
 *     if (profiler_finish(&profiler, &rest, &error) < 0) …
 *     profiler_close(&profiler);                                         // before the session */
#ifndef STOWKV_PROFILER_H
#define STOWKV_PROFILER_H

#include "eval/profile/profiled_mode.h"
#include "eval/profile/quality.h"
#include "session/session.h"

#include <signal.h>

#define PROFILER_OUTPUTS "outputs" /* the folder of all profiles, in the one that the program runs in */

typedef struct Profiler {
    char *folder;     /* "outputs/run"; NULL: not open */
    Session *session; /* not owned; NULL: not attached */
    Backend *timed;
    Profile profile; /* of the run under way */
    ProfileRoofs roofs;
    ProfiledMode *modes; /* (n_modes) */
    size_t n_modes;
    cJSON *depths;           /* of the sweep; NULL: none */
    cJSON *quality, *recall; /* NULL: none */
} Profiler;

/* Makes the folder, under another name than any that is there. ERROR_USAGE for a name that is no plain one. */
int profiler_open(Profiler *profiler, const char *name, Error *error);

/* Measures what the machine can do, and times the model's backend from here on. */
int profiler_attach(Profiler *profiler, Session *session, Error *error);

void profiler_begin(Profiler *profiler);

/* The run in session->context is through; owns `report` in any case. */
int profiler_take(Profiler *profiler, cJSON *report, Error *error);

/* What is measured once the runs are through. */
typedef struct ProfilerRest {
    const SessionOptions *options;
    bool compares; /* all three modes */
    const PolicyList *policies;
    bool quality;            /* recall too */
    const PplText *text;     /* for quality: see quality.h */
    const TokenList *prompt; /* of the runs */
    const volatile sig_atomic_t *interrupted;
} ProfilerRest;

/* Measures the rest, untimed, writes all files, says on stderr where they are, and draws the figures. A profile that
 * was interrupted, or whose rest could not be measured, is written as far as it came and says what it lacks; the error
 * is the first one, ERROR_INTERRUPTED among them. The session's context is another then. */
int profiler_finish(Profiler *profiler, const ProfilerRest *rest, Error *error);

/* All files. `cut` says what is missing of an interrupted profile ("" : nothing), for the reader of the report. */
int profiler_write(const Profiler *profiler, const char *cut, Error *error);

/* Has eval/plot.py draw the figures and put them into the report. Where that cannot be, a note says what is missing:
 * the data is complete without them. */
void profiler_draw(const Profiler *profiler, FILE *notes);

void profiler_close(Profiler *profiler); /* twice is fine */

#endif
