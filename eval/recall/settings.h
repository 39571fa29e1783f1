/* The command line of recall, and what can be wrong with it.
 *
 *     static RecallSettings settings = RECALL_DEFAULTS;
 *     …                                                              // options_parse()
 *     if (recall_settings_check(&settings, &error) < 0) …            // the command line alone
 *     if (recall_settings_fit(&settings, n_ctx, &error) < 0) …       // with what the model can hold
 */
#ifndef STOWKV_RECALL_SETTINGS_H
#define STOWKV_RECALL_SETTINGS_H

#include "eval/size_list.h"
#include "session/session.h"

typedef struct RecallSettings {
    SessionOptions session;
    const char *distances, *lengths, *haystack, *chat_template, *date, *json, *csv;
    size_t segment, samples, batch, positions, max_new_tokens; /* OPTION_UNSET: the default */
    uint64_t seed;
    bool needle, compare;
    SizeList sizes; /* the distances, or with --needle the lengths */
} RecallSettings;

#define RECALL_DEFAULTS                                                                                                \
    {                                                                                                                  \
        .session = SESSION_DEFAULTS, .segment = OPTION_UNSET, .samples = OPTION_UNSET, .batch = OPTION_UNSET,          \
        .positions = OPTION_UNSET, .max_new_tokens = OPTION_UNSET, .seed = 1                                           \
    }

/* ERROR_USAGE for flags that are missing, of the other task, or make no experiment. Fills in the defaults of those that
 * were not given, and `sizes`. */
int recall_settings_check(RecallSettings *settings, Error *error);

/* ERROR_ARGUMENT, with what fits, for distances or lengths that a context of n_ctx tokens does not hold. Of the default
 * ones those that fit remain. */
int recall_settings_fit(RecallSettings *settings, size_t n_ctx, Error *error);

#endif
