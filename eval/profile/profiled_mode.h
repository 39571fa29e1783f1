/* What one mode's run leaves behind for the reports, once its cache is closed: the profile, what the cache held at each
 * step, and the run's own report. */
#ifndef STOWKV_PROFILED_MODE_H
#define STOWKV_PROFILED_MODE_H

#include "eval/profile/profile_json.h"
#include "kvcache/policy_text.h"

#include <stdio.h>

typedef struct ProfiledMode {
    char mode[16], policy[KV_POLICY_TEXT];
    Profile profile;
    size_t n_tiers;
    char (*tier_names)[KV_ROW_NAME]; /* (n_tiers): "sink", "f16", "int8" */
    size_t *held;                    /* (n_steps, n_tiers) bytes of the tokens in each tier behind the step */
    cJSON *report;                   /* run_report_json() with "profile" and "growth" */
} ProfiledMode;

/* Takes the profile out of `profile` and reads the cache, which is still open; owns `report` in any case. */
int profiled_mode_take(ProfiledMode *mode, Profile *profile, const KvCache *cache, const ModelConfig *config,
                       const ProfileRoofs *roofs, cJSON *report, Error *error);
void profiled_mode_free(ProfiledMode *mode);

/* The sum over a step's tiers. */
size_t profiled_mode_held(const ProfiledMode *mode, size_t step);

/* "steps.csv": a line for each step, a column for each tier that any of the modes has. */
void profiled_modes_csv(const ProfiledMode *modes, size_t n_modes, FILE *stream);

#endif
