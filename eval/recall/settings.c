/* See settings.h. */
#include "eval/recall/settings.h"

#include "eval/recall/segments.h"

#define DISTANCES "64,256,1024,4096"
#define LENGTHS   "512,1024,2048,4096"

static size_t or_default(size_t value, size_t usual) {
    return value == OPTION_UNSET ? usual : value;
}

/* Flags of the task that was not chosen would do nothing. */
static int check_task(const RecallSettings *s, Error *error) {
    const struct {
        const char *name;
        bool given, of_needle;
    } flags[] = {
        {"distances", s->distances != NULL, false},
        {"segment", s->segment != OPTION_UNSET, false},
        {"batch", s->batch != OPTION_UNSET, false},
        {"lengths", s->lengths != NULL, true},
        {"positions", s->positions != OPTION_UNSET, true},
        {"haystack", s->haystack != NULL, true},
        {"max_new_tokens", s->max_new_tokens != OPTION_UNSET, true},
        {"chat_template", s->chat_template != NULL, true},
        {"date", s->date != NULL, true},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (flags[i].given && flags[i].of_needle != s->needle)
            return error_set(error, ERROR_USAGE, "--%s is %s; %s", flags[i].name,
                             s->needle ? "not for --needle" : "for --needle",
                             s->needle ? "leave it out" : "give that too, or leave it out");
    return 0;
}

static int check_distances(const RecallSettings *s, Error *error) {
    if (s->segment % 4 != 0)
        return error_set(error, ERROR_USAGE, "--segment %zu: its first quarter is the question; use a multiple of 4",
                         s->segment);
    if (s->sizes.items[0] < s->segment && s->distances != NULL)
        return error_set(error, ERROR_USAGE,
                         "--distances %s: at %zu tokens a segment of %zu and its repetition would overlap; use a "
                         "smaller --segment, or distances from %zu on",
                         s->distances, s->sizes.items[0], s->segment, s->segment);
    return 0;
}

int recall_settings_check(RecallSettings *s, Error *error) {
    if (s->session.checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (check_task(s, error) < 0)
        return error->code;
    s->segment = or_default(s->segment, 32);
    s->samples = or_default(s->samples, s->needle ? 20 : 50);
    s->batch = or_default(s->batch, 0);
    s->positions = or_default(s->positions, 10);
    s->max_new_tokens = or_default(s->max_new_tokens, 128);
    if (s->needle)
        return size_list_parse("--lengths", s->lengths != NULL ? s->lengths : LENGTHS, LENGTHS, &s->sizes, error);
    if (size_list_parse("--distances", s->distances != NULL ? s->distances : DISTANCES, DISTANCES, &s->sizes, error) <
        0)
        return error->code;
    return check_distances(s, error);
}

/* Keeps what lies in [least, most]. */
static void keep_range(SizeList *list, size_t least, size_t most) {
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i] >= least && list->items[i] <= most)
            list->items[n++] = list->items[i];
    list->count = n;
}

static int fit_distances(RecallSettings *s, size_t n_ctx, Error *error) {
    size_t largest = recall_largest_distance(s->segment, n_ctx), last = s->sizes.items[s->sizes.count - 1];
    if (largest == 0)
        return error_set(error, ERROR_ARGUMENT,
                         "--segment %zu: twice, behind up to %d other tokens, it does not fit a context of %zu; use a "
                         "smaller --segment",
                         s->segment, 2 * RECALL_LEAD - 1, n_ctx);
    if (s->distances != NULL && last > largest)
        return error_set(error, ERROR_ARGUMENT,
                         "--distances %s: %zu needs a context of %zu tokens, with the segment and what stands before "
                         "it, and there are %zu; use distances up to %zu",
                         s->distances, last, recall_tokens_needed(s->segment, last), n_ctx, largest);
    if (s->distances == NULL)
        keep_range(&s->sizes, s->segment, largest);
    if (s->sizes.count == 0)
        return error_set(error, ERROR_ARGUMENT,
                         "of the distances " DISTANCES " none is as long as the segment of %zu tokens and fits a "
                         "context of %zu; give --distances from %zu to %zu",
                         s->segment, n_ctx, s->segment, largest);
    return 0;
}

int recall_settings_fit(RecallSettings *s, size_t n_ctx, Error *error) {
    if (!s->needle)
        return fit_distances(s, n_ctx, error);
    size_t last = s->sizes.items[s->sizes.count - 1];
    if (s->lengths != NULL && last > n_ctx)
        return error_set(error, ERROR_ARGUMENT,
                         "--lengths %s: the context has %zu tokens, and %zu are more; use lengths up to %zu",
                         s->lengths, n_ctx, last, n_ctx);
    if (s->lengths == NULL)
        keep_range(&s->sizes, 0, n_ctx);
    if (s->sizes.count == 0)
        return error_set(error, ERROR_ARGUMENT, "none of " LENGTHS " tokens fits a context of %zu; give --lengths",
                         n_ctx);
    return 0;
}
