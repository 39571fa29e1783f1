/* --compare: the same prompt under several policies, each text under its mode's name, and a table; with --profile where
 * their time and memory go, too.
 *
 *     Comparison comparison = {.profile = "run", .policies = policies};
 *     if (comparison_open(&comparison, &error) < 0) …                     // the profile's folder
 *     if (comparison_attach(&comparison, &session, &error) < 0) …         // once the model is loaded
 *     if (comparison_run(&comparison, &answer, prompt, &json, &error) < 0) …
 *     comparison_close(&comparison);                                      // before the session
 */
#ifndef STOWKV_COMPARE_H
#define STOWKV_COMPARE_H

#include "base/output_file.h"
#include "eval/profile/profiler.h"
#include "generate/answer.h"

typedef struct Comparison {
    const char *profile;      /* its name; NULL: none */
    const char *profile_text; /* a file, for the profile's quality; NULL: none */
    bool profile_quality;
    bool all_modes;      /* beside what the policies are: full, compressed and quantized were asked for */
    PolicyList policies; /* owned */

    Profiler profiler;
    Error no_profile; /* why there is none though it was asked for */
    PplText text;     /* of profile_text; no tokens: none */
} Comparison;

/* Where the profile's folder cannot be made there is no profile, and the text all the same: comparison_run() says so.
 */
int comparison_open(Comparison *comparison, Error *error);
int comparison_attach(Comparison *comparison, Session *session, Error *error);

/* `json`: where the runs' reports go; NULL: nowhere. What Ctrl-C leaves of them is written to the profile. */
int comparison_run(Comparison *comparison, Answer *answer, StringView prompt, OutputFile *json, Error *error);
void comparison_close(Comparison *comparison); /* twice is fine */

#endif
