/* See trace.h. Names are the program's own, without characters that JSON escapes, but for policies, which may have
 * none either (policy_text.h). */
#include "eval/profile/trace.h"

enum { STEPS_ROW = 1, OPERATIONS_ROW };

void trace_begin(FILE *stream) {
    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", stream);
}

static void name_row(const char *kind, int process, int row, const char *name, const char *policy, FILE *stream) {
    fprintf(stream, "\n{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s%s%s\"}},", kind,
            process, row, name, policy[0] != '\0' ? ": " : "", policy);
}

static void add_step(const ProfiledMode *mode, size_t i, int process, FILE *stream) {
    const ProfileStep *step = &mode->profile.steps[i];
    fprintf(stream,
            "\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"tokens\":%zu,"
            "\"depth\":%zu}},",
            profile_phase_name(step->n_tokens > 1 ? PROFILE_PROMPT : PROFILE_DECODE), process, STEPS_ROW,
            1e6 * step->begin, 1e6 * (step->end - step->begin), step->n_tokens, step->depth);
    fprintf(stream, "\n{\"name\":\"cache bytes\",\"ph\":\"C\",\"pid\":%d,\"ts\":%.3f,\"args\":{", process,
            1e6 * step->end);
    for (size_t tier = 0; tier < mode->n_tiers; tier++)
        fprintf(stream, "%s\"%s\":%zu", tier > 0 ? "," : "", mode->tier_names[tier],
                mode->held[i * mode->n_tiers + tier]);
    fputs("}},", stream);
}

void trace_add(const ProfiledMode *mode, int process, FILE *stream) {
    const Profile *profile = &mode->profile;
    name_row("process_name", process, 0, mode->mode, mode->policy, stream);
    name_row("thread_name", process, STEPS_ROW, "steps", "", stream);
    name_row("thread_name", process, OPERATIONS_ROW, "operations", "", stream);
    for (size_t i = 0; i < profile->n_steps; i++)
        add_step(mode, i, process, stream);
    for (size_t i = 0; i < profile->n_events; i++) {
        const ProfileEvent *event = &profile->events[i];
        fprintf(stream,
                "\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"layer\":%u}"
                "},",
                profile_op_name((ProfileOp)event->op), process, OPERATIONS_ROW, 1e6 * event->begin,
                1e6 * event->seconds, event->layer);
    }
}

/* An event more, as the list may not end with a comma. */
void trace_end(FILE *stream) {
    fputs("\n{\"name\":\"stowkv\",\"ph\":\"M\",\"pid\":0,\"args\":{}}\n]}\n", stream);
}
