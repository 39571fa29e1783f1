/* Stop strings over text that arrives in pieces: text is held back as long as it may be the beginning of one. */
#ifndef STOWKV_STOP_STRINGS_H
#define STOWKV_STOP_STRINGS_H

#include "base/error.h"
#include "base/options.h"
#include "base/string_view.h"

/* Starts as {.stops = …}. */
typedef struct StopStrings {
    const StringList *stops; /* not owned */
    char *held;              /* text that is not released yet; owned */
    size_t length, capacity;
    size_t released; /* bytes of `held` that the last call gave out */
} StopStrings;

/* Takes in `text`. *released is what is now certain to come before any stop string, valid until the next call; *stopped
 * says that one was found: it and what follows it are never released. */
int stop_strings_feed(StopStrings *state, StringView text, StringView *released, bool *stopped, Error *error);

/* After an end without a stop string: what is still held back, which belongs to the text. */
StringView stop_strings_finish(StopStrings *state);
void stop_strings_free(StopStrings *state);

#endif
