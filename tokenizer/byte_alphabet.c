/* See byte_alphabet.h. */
#include "tokenizer/byte_alphabet.h"

#include <utf8proc.h>

static bool stands_for_itself(int32_t code_point) {
    return (code_point >= 0x21 && code_point <= 0x7E) || (code_point >= 0xA1 && code_point <= 0xAC) ||
           (code_point >= 0xAE && code_point <= 0xFF);
}

/* The others in order: 33 bytes 0x00–0x20, 34 bytes 0x7F–0xA0, and 0xAD. */
static int32_t code_point_of(unsigned char byte) {
    if (stands_for_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

/* The byte that a code point stands for, or -1. */
static int byte_of(int32_t code_point) {
    if (stands_for_itself(code_point))
        return code_point;
    if (code_point < 0x100 || code_point > 0x143)
        return -1;
    if (code_point <= 0x120)
        return code_point - 0x100;
    return code_point == 0x143 ? 0xAD : code_point - 0x121 + 0x7F;
}

size_t byte_alphabet_write(StringView bytes, char *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < bytes.length; i++) {
        utf8proc_int32_t code_point = code_point_of((unsigned char)bytes.bytes[i]);
        n_out += (size_t)utf8proc_encode_char(code_point, (utf8proc_uint8_t *)out + n_out);
    }
    return n_out;
}

size_t byte_alphabet_read(StringView token, char *out) {
    size_t n_out = 0;
    utf8proc_ssize_t length;
    for (size_t i = 0; i < token.length; i += (size_t)length) {
        utf8proc_int32_t code_point;
        length = utf8proc_iterate((const utf8proc_uint8_t *)token.bytes + i, (utf8proc_ssize_t)(token.length - i),
                                  &code_point);
        int byte = length > 0 ? byte_of(code_point) : -1;
        if (byte < 0) {
            memcpy(out, token.bytes, token.length);
            return token.length;
        }
        out[n_out++] = (char)byte;
    }
    return n_out;
}
