/* UTF-8 validation by the table of well-formed byte sequences (Unicode Standard, table 3-7); see utf8.h. */
#include "tokenizer/utf8.h"

Utf8Status utf8_scan(const char *bytes, size_t n, size_t *length) {
    const unsigned char *b = (const unsigned char *)bytes;
    size_t need;
    /* The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF. */
    unsigned char low = 0x80, high = 0xBF;
    *length = 1;
    if (b[0] < 0x80)
        return UTF8_VALID;
    if (b[0] < 0xC2 || b[0] > 0xF4)
        return UTF8_INVALID;
    if (b[0] < 0xE0) {
        need = 2;
    } else if (b[0] < 0xF0) {
        need = 3;
        low = b[0] == 0xE0 ? 0xA0 : 0x80;
        high = b[0] == 0xED ? 0x9F : 0xBF;
    } else {
        need = 4;
        low = b[0] == 0xF0 ? 0x90 : 0x80;
        high = b[0] == 0xF4 ? 0x8F : 0xBF;
    }
    for (; *length < need; ++*length) {
        if (*length == n)
            return UTF8_INCOMPLETE;
        if (b[*length] < low || b[*length] > high)
            return UTF8_INVALID;
        low = 0x80;
        high = 0xBF;
    }
    return UTF8_VALID;
}

bool utf8_is_valid(StringView text) {
    for (size_t i = 0, length; i < text.length; i += length)
        if (utf8_scan(text.bytes + i, text.length - i, &length) != UTF8_VALID)
            return false;
    return true;
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

uint32_t utf8_code_point(const char *bytes, size_t length) {
    const unsigned char *b = (const unsigned char *)bytes;
    if (length == 1)
        return b[0];
    uint32_t code_point = b[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++)
        code_point = code_point << 6 | (b[i] & 0x3Fu);
    return code_point;
}

size_t utf8_write(uint32_t code_point, char out[4]) {
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code_point >>= 6)
        out[i] = (char)(0x80 | (code_point & 0x3F));
    out[0] = (char)((0xF00u >> length & 0xFF) | code_point);
    return length;
}
