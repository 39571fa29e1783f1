/* A view of bytes that are not NUL-terminated and may hold NULs: text in a mapped file, a piece of a prompt.
 * It owns nothing. Printed with "%.*s" and SV_ARGS(view). */
#ifndef STOWKV_STRING_VIEW_H
#define STOWKV_STRING_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct StringView {
    const char *bytes;
    size_t length; /* in bytes */
} StringView;

/* For "%.*s"; long text is cut, since messages are one line. */
#define SV_ARGS(view) (int)((view).length < 128 ? (view).length : 128), (view).bytes

static inline StringView sv(const char *text) {
    StringView view = {text, strlen(text)};
    return view;
}

static inline bool sv_equal(StringView a, StringView b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

static inline bool sv_is(StringView a, const char *text) {
    return sv_equal(a, sv(text));
}

static inline bool sv_starts_with(StringView a, StringView prefix) {
    return a.length >= prefix.length && (prefix.length == 0 || memcmp(a.bytes, prefix.bytes, prefix.length) == 0);
}

static inline bool sv_ends_with(StringView a, StringView ending) {
    return a.length >= ending.length &&
           (ending.length == 0 || memcmp(a.bytes + a.length - ending.length, ending.bytes, ending.length) == 0);
}

/* By their bytes: below 0, 0 or above as in strcmp(). */
static inline int sv_compare(StringView a, StringView b) {
    size_t n = a.length < b.length ? a.length : b.length;
    int order = n == 0 ? 0 : memcmp(a.bytes, b.bytes, n);
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

/* The offset of the first `needle` in `a` at or after `from`, or a.length where there is none. */
static inline size_t sv_find(StringView a, StringView needle, size_t from) {
    for (size_t i = from; i + needle.length <= a.length; i++)
        if (memcmp(a.bytes + i, needle.bytes, needle.length) == 0)
            return i;
    return a.length;
}

#endif
