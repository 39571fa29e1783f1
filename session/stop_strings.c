/* Stop strings; see stop_strings.h. */
#include "session/stop_strings.h"

#include <stdlib.h>

static void drop_released(StopStrings *state) {
    if (state->released > 0)
        memmove(state->held, state->held + state->released, state->length - state->released);
    state->length -= state->released;
    state->released = 0;
}

static int append(StopStrings *state, StringView text, Error *error) {
    if (state->length + text.length > state->capacity) {
        size_t capacity = 2 * (state->length + text.length);
        char *held = realloc(state->held, capacity);
        if (held == NULL)
            return error_memory(error, "generated text", capacity);
        state->held = held;
        state->capacity = capacity;
    }
    if (text.length > 0)
        memcpy(state->held + state->length, text.bytes, text.length);
    state->length += text.length;
    return 0;
}

/* Where the first stop string begins, or may begin once more text has come; `whole` says which. */
static size_t first_stop(const StopStrings *state, bool *whole) {
    *whole = false;
    for (size_t start = 0; start < state->length; start++)
        for (size_t i = 0; i < state->stops->count; i++) {
            StringView stop = sv(state->stops->items[i]), rest = {state->held + start, state->length - start};
            if (stop.length == 0)
                continue;
            *whole = sv_starts_with(rest, stop);
            if (*whole || sv_starts_with(stop, rest))
                return start;
        }
    return state->length;
}

int stop_strings_feed(StopStrings *state, StringView text, StringView *released, bool *stopped, Error *error) {
    drop_released(state);
    if (append(state, text, error) < 0)
        return error->code;
    state->released = first_stop(state, stopped);
    *released = (StringView){state->held, state->released};
    if (*stopped)
        state->length = state->released;
    return 0;
}

StringView stop_strings_finish(StopStrings *state) {
    drop_released(state);
    state->released = state->length;
    return (StringView){state->held, state->length};
}

void stop_strings_free(StopStrings *state) {
    free(state->held);
    *state = (StopStrings){0};
}
