/* What the command line of generate asks for, beyond what all programs know (session.h). */
#ifndef STOWKV_GENERATE_SETTINGS_H
#define STOWKV_GENERATE_SETTINGS_H

#include "session/prefix_reuse.h"
#include "session/sampler.h"

typedef struct Settings {
    SessionOptions session;
    const char *prompt, *prompt_file, *prompts_file, *output, *system, *chat_template, *date, *json, *profile,
        *profile_text;
    const char *shape, *inspect;
    bool chat, interactive, parse_special, ignore_eos, compare, plan_memory, profile_quality;
    size_t max_new_tokens;
    SamplerOptions sampler;
    uint64_t drawn_seed; /* the sampler's, unless --seed gives one */
    PrefixReuseOptions prefix;
    StringList stops;
} Settings;

/* All that the command line alone can be wrong about: ERROR_USAGE. Sets what flags imply. */
int settings_check(Settings *settings, Error *error);

bool settings_have_prompt(const Settings *settings);

/* What results follow from beside their prompts, as JSON, malloc'd; of a seed that was drawn no run could go on. NULL,
 * with an error, where the policy cannot be had. */
char *settings_describe(const Settings *settings, Error *error);

#endif
