/* See byte_alphabet.h. */
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/utf8.h"

static bool stands_for_itself(uint32_t code_point) {
    return (code_point >= 0x21 && code_point <= 0x7E) || (code_point >= 0xA1 && code_point <= 0xAC) ||
           (code_point >= 0xAE && code_point <= 0xFF);
}

/* The others in order: 33 bytes 0x00–0x20, 34 bytes 0x7F–0xA0, and 0xAD. */
uint32_t byte_alphabet_code_point(unsigned char byte) {
    if (stands_for_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x121u + (byte - 0x7Fu);
}

int byte_alphabet_byte(uint32_t code_point) {
    if (stands_for_itself(code_point))
        return (int)code_point;
    if (code_point < 0x100 || code_point > 0x143)
        return -1;
    if (code_point <= 0x120)
        return (int)(code_point - 0x100);
    return code_point == 0x143 ? 0xAD : (int)(code_point - 0x121 + 0x7F);
}

size_t byte_alphabet_write(StringView bytes, char *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < bytes.length; i++)
        n_out += utf8_write(byte_alphabet_code_point((unsigned char)bytes.bytes[i]), out + n_out);
    return n_out;
}

size_t byte_alphabet_read(StringView token, char *out) {
    size_t n_out = 0;
    for (size_t i = 0, length; i < token.length; i += length) {
        int byte = -1;
        if (utf8_scan(token.bytes + i, token.length - i, &length) == UTF8_VALID)
            byte = byte_alphabet_byte(utf8_code_point(token.bytes + i, length));
        if (byte < 0) {
            memcpy(out, token.bytes, token.length);
            return token.length;
        }
        out[n_out++] = (char)byte;
    }
    return n_out;
}
