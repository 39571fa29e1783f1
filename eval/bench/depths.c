/* See depths.h. */
#include "eval/bench/depths.h"

#include <errno.h>
#include <stdlib.h>

#define DEEPEST ((size_t)1 << 28)

static int bad_list(const char *text, const char *at, Error *error) {
    return error_set(error, ERROR_USAGE,
                     "--depths %s: character %zu: expected a number of tokens up to %zu; give depths as 0,2048,8192",
                     text, (size_t)(at - text) + 1, DEEPEST);
}

static int check_gap(const char *text, size_t former, size_t depth, size_t n_measured, Error *error) {
    if (depth <= former)
        return error_set(error, ERROR_USAGE, "--depths %s: %zu comes after %zu; give each depth once, in rising order",
                         text, depth, former);
    if (depth - former < n_measured)
        return error_set(error, ERROR_USAGE,
                         "--depths %s: the %zu tokens that are measured at %zu (--generate_tokens and --prompt_tokens) "
                         "go beyond %zu; use fewer of them, or %zu for the next depth",
                         text, n_measured, former, depth, former + n_measured);
    return 0;
}

int bench_depths_parse(const char *text, size_t n_measured, BenchDepths *out, Error *error) {
    out->count = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        unsigned long long depth = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || errno != 0 || depth > DEEPEST)
            return bad_list(text, at, error);
        if (*end != ',' && *end != '\0')
            return bad_list(text, end, error);
        if (out->count == BENCH_MAX_DEPTHS)
            return error_set(error, ERROR_USAGE, "--depths: more than %d; use fewer", BENCH_MAX_DEPTHS);
        if (out->count > 0 && check_gap(text, out->items[out->count - 1], (size_t)depth, n_measured, error) < 0)
            return error->code;
        out->items[out->count++] = (size_t)depth;
        at = end;
        if (*end == '\0')
            return 0;
    }
}

void bench_depths_default(size_t n_ctx, size_t n_measured, BenchDepths *out) {
    static const size_t USUAL[] = {0, 2048, 8192};
    size_t deepest = n_ctx > n_measured ? n_ctx - n_measured : 0;
    *out = (BenchDepths){.count = 1};
    for (size_t i = 1; i < sizeof USUAL / sizeof *USUAL; i++) {
        size_t depth = USUAL[i] < deepest ? USUAL[i] : deepest;
        if (depth >= out->items[out->count - 1] + n_measured)
            out->items[out->count++] = depth;
    }
}
