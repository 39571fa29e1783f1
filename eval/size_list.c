/* See size_list.h. */
#include "eval/size_list.h"

#include <errno.h>
#include <stdlib.h>

#define LARGEST ((size_t)1 << 28)

static int bad_list(const char *flag, const char *text, const char *at, const char *example, Error *error) {
    return error_set(error, ERROR_USAGE, "%s %s: character %zu: expected a number of tokens up to %zu; give them as %s",
                     flag, text, (size_t)(at - text) + 1, LARGEST, example);
}

int size_list_parse(const char *flag, const char *text, const char *example, SizeList *out, Error *error) {
    out->count = 0;
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        unsigned long long size = strtoull(at, &end, 10);
        if (*at < '0' || *at > '9' || errno != 0 || size > LARGEST)
            return bad_list(flag, text, at, example, error);
        if (*end != ',' && *end != '\0')
            return bad_list(flag, text, end, example, error);
        if (out->count == SIZE_LIST_MAX)
            return error_set(error, ERROR_USAGE, "%s: more than %d; use fewer", flag, SIZE_LIST_MAX);
        if (out->count > 0 && size <= out->items[out->count - 1])
            return error_set(error, ERROR_USAGE, "%s %s: %llu comes after %zu; give each once, in rising order", flag,
                             text, size, out->items[out->count - 1]);
        out->items[out->count++] = (size_t)size;
        at = end;
        if (*end == '\0')
            return 0;
    }
}
