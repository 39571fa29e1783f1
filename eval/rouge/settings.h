/* The command line of rouge, and what can be wrong with it.
 *
 *     static RougeSettings settings = ROUGE_DEFAULTS;
 *     const SessionOptions defaults = settings.session;
 *     …                                                              // options_parse()
 *     if (rouge_settings_check(&settings, &defaults, &error) < 0) …
 */
#ifndef STOWKV_ROUGE_SETTINGS_H
#define STOWKV_ROUGE_SETTINGS_H

#include "eval/rouge/score.h"
#include "session/session.h"

#define ROUGE_SEED_UNSET UINT64_MAX

typedef struct RougeSettings {
    SessionOptions session;
    const char *pairs, *variant, *json;
    const char *data, *prompt_field, *reference_field, *prompt_template, *chat_template, *date, *long_prompts, *output;
    bool stem, skip_bad_lines, compare;
    size_t samples, max_new_tokens; /* OPTION_UNSET: the default */
    uint64_t seed;
    RougeVariant parsed_variant;
} RougeSettings;

#define ROUGE_DEFAULTS                                                                                                 \
    {                                                                                                                  \
        .session = SESSION_DEFAULTS, .variant = "rougeL", .samples = OPTION_UNSET, .max_new_tokens = OPTION_UNSET,     \
        .seed = ROUGE_SEED_UNSET                                                                                       \
    }

/* ERROR_USAGE for flags that are missing, contradict each other or would do nothing. Fills in the defaults of those
 * that were not given, and parsed_variant. `defaults`: the session's options before the command line. */
int rouge_settings_check(RougeSettings *settings, const SessionOptions *defaults, Error *error);

#endif
