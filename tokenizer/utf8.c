/* See utf8.h. */
#include "tokenizer/utf8.h"

#include "base/checked.h"

#include <utf8proc.h>

#define LONGEST 4 /* bytes of a character */

/* The length of the character that starts `bytes`, or 0. */
static size_t decode(const char *bytes, size_t n, utf8proc_int32_t *code_point) {
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)n, code_point);
    return length > 0 ? (size_t)length : 0;
}

/* Whether n bytes (1 to 3) start a longer character: filled up with the lowest or the highest continuation bytes, they
 * are one. */
static bool starts_character(const char *bytes, size_t n) {
    const int fills[] = {0x80, 0xBF};
    for (size_t i = 0; i < 2; i++) {
        char whole[LONGEST];
        utf8proc_int32_t code_point;
        memset(whole, fills[i], sizeof whole);
        memcpy(whole, bytes, n);
        if (decode(whole, sizeof whole, &code_point) > n)
            return true;
    }
    return false;
}

Utf8Status utf8_scan(const char *bytes, size_t n, size_t *length) {
    utf8proc_int32_t code_point;
    if ((*length = decode(bytes, n, &code_point)) > 0)
        return UTF8_VALID;
    size_t most = at_most(n, LONGEST - 1), start = 0;
    while (start < most && starts_character(bytes, start + 1))
        start++;
    *length = at_least(start, 1);
    return start == n ? UTF8_INCOMPLETE : UTF8_INVALID;
}

size_t utf8_first_invalid(StringView text) {
    size_t i = 0;
    for (size_t length; i < text.length; i += length)
        if (utf8_scan(text.bytes + i, text.length - i, &length) != UTF8_VALID)
            break;
    return i;
}

bool utf8_is_valid(StringView text) {
    return utf8_first_invalid(text) == text.length;
}

size_t utf8_repair(StringView text, char *out) {
    size_t n_out = 0;
    for (size_t i = 0, length; i < text.length; i += length) {
        if (utf8_scan(text.bytes + i, text.length - i, &length) == UTF8_VALID) {
            memcpy(out + n_out, text.bytes + i, length);
            n_out += length;
        } else {
            memcpy(out + n_out, UTF8_REPLACEMENT, 3);
            n_out += 3;
        }
    }
    return n_out;
}

bool utf8_starts_with_space(StringView text, size_t *length) {
    utf8proc_int32_t c;
    *length = text.length > 0 ? decode(text.bytes, text.length, &c) : 0;
    if (*length == 0)
        return false;
    if ((c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F) || c == 0x85)
        return true;
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool utf8_starts_with_white_space(StringView text, size_t *length) {
    bool separator = text.length > 0 && text.bytes[0] >= 0x1C && text.bytes[0] <= 0x1F;
    return utf8_starts_with_space(text, length) && !separator;
}
