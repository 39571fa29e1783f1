/* See depths.h. */
#include "eval/bench/depths.h"

static int check_gap(const char *text, size_t former, size_t depth, size_t n_measured, Error *error) {
    if (depth - former < n_measured)
        return error_set(error, ERROR_USAGE,
                         "--depths %s: the %zu tokens that are measured at %zu (--generate_tokens and --prompt_tokens) "
                         "go beyond %zu; use fewer of them, or %zu for the next depth",
                         text, n_measured, former, depth, former + n_measured);
    return 0;
}

int bench_depths_parse(const char *text, size_t n_measured, SizeList *out, Error *error) {
    if (size_list_parse("--depths", text, "0,2048,8192", out, error) < 0)
        return error->code;
    for (size_t i = 1; i < out->count; i++)
        if (check_gap(text, out->items[i - 1], out->items[i], n_measured, error) < 0)
            return error->code;
    return 0;
}

void bench_depths_default(size_t n_ctx, size_t n_measured, SizeList *out) {
    static const size_t USUAL[] = {0, 2048, 8192};
    size_t deepest = n_ctx > n_measured ? n_ctx - n_measured : 0;
    *out = (SizeList){.count = 1};
    for (size_t i = 1; i < sizeof USUAL / sizeof *USUAL; i++) {
        size_t depth = USUAL[i] < deepest ? USUAL[i] : deepest;
        if (depth >= out->items[out->count - 1] + n_measured)
            out->items[out->count++] = depth;
    }
}
