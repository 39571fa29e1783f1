/* See text_stream.h. */
#include "tokenizer/text_stream.h"

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

#define UNKNOWN_TEXT " \xE2\x81\x87 " /* U+2047: SentencePiece's text for the unknown piece */

static bool is_control(const Tokenizer *tokenizer, int32_t id) {
    return id < 0 || (size_t)id >= tokenizer_n_tokens(tokenizer) || tokenizer_type(tokenizer, id) == TOKEN_CONTROL;
}

TextStream text_stream_start(const Tokenizer *tokenizer, const int32_t *context, size_t n_context) {
    bool starts = true;
    for (size_t i = 0; i < n_context && starts; i++)
        starts = is_control(tokenizer, context[i]);
    return (TextStream){.tokenizer = tokenizer, .strip_space = starts && tokenizer_adds_space(tokenizer)};
}

/* The byte of a piece "<0x0A>", or -1. */
static int piece_byte(StringView piece) {
    int byte = 0;
    if (piece.length != 6 || !sv_starts_with(piece, sv("<0x")) || piece.bytes[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = piece.bytes[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        byte = 16 * byte + digit;
    }
    return byte;
}

static size_t append(char *out, size_t n, const char *bytes, size_t length) {
    memcpy(out + n, bytes, length);
    return n + length;
}

/* Writes a piece's bytes with boundaries as spaces; never longer than the piece. */
static size_t write_piece(TextStream *stream, StringView piece, char *out) {
    StringView boundary = sv(PIECE_SPACE);
    size_t n = 0, from = stream->strip_space && sv_starts_with(piece, boundary) ? boundary.length : 0;
    while (from < piece.length) {
        size_t at = sv_find(piece, boundary, from);
        n = append(out, n, piece.bytes + from, at - from);
        from = at;
        if (at < piece.length) {
            out[n++] = ' ';
            from += boundary.length;
        }
    }
    return n;
}

/* Writes what a token stands for to `out` and returns its length, at most that of the token or of UNKNOWN_TEXT. */
static size_t write_token(TextStream *stream, int32_t id, char *out) {
    const Tokenizer *tokenizer = stream->tokenizer;
    StringView token = tokenizer_token(tokenizer, id);
    TokenType type = tokenizer_type(tokenizer, id);
    if (tokenizer_is_byte_level(tokenizer)) {
        if (type == TOKEN_NORMAL || type == TOKEN_UNUSED || type == TOKEN_BYTE)
            return byte_alphabet_read(token, out);
        return type == TOKEN_USER_DEFINED ? append(out, 0, token.bytes, token.length) : 0;
    }
    size_t length;
    int byte = type == TOKEN_BYTE ? piece_byte(token) : -1;
    if (type == TOKEN_UNKNOWN) {
        length = append(out, 0, UNKNOWN_TEXT, sizeof UNKNOWN_TEXT - 1);
    } else if (byte >= 0) {
        out[0] = (char)byte;
        length = 1;
    } else {
        length = write_piece(stream, token, out);
    }
    stream->strip_space = false;
    return length;
}

/* Splits off an incomplete character at the end of `raw`, holds it back for the next token, and repairs the rest. */
static StringView release(TextStream *stream, StringView raw, char *out) {
    size_t at = 0, length;
    Utf8Status status = UTF8_VALID;
    for (; at < raw.length; at += length) {
        status = utf8_scan(raw.bytes + at, raw.length - at, &length);
        if (status == UTF8_INCOMPLETE)
            break;
    }
    stream->n_held = raw.length - at;
    memcpy(stream->held, raw.bytes + at, stream->n_held);
    return (StringView){out, utf8_repair((StringView){raw.bytes, at}, out)};
}

StringView text_stream_next(TextStream *stream, int32_t id, Error *error) {
    StringView nothing = {"", 0};
    if (is_control(stream->tokenizer, id))
        return nothing;
    /* Sized for the longest token at once, so that later tokens allocate nothing: the raw bytes, with those held back,
     * then three times as many for the repaired text. */
    size_t longest = tokenizer_longest_token(stream->tokenizer),
           n_raw = sizeof stream->held + sizeof UNKNOWN_TEXT + longest;
    if (stream->buffer == NULL) {
        stream->buffer = malloc(4 * n_raw);
        if (stream->buffer == NULL) {
            error_memory(error, "generated text", 4 * n_raw);
            return nothing;
        }
    }
    char *raw = stream->buffer;
    memcpy(raw, stream->held, stream->n_held);
    size_t n = stream->n_held + write_token(stream, id, raw + stream->n_held);
    return release(stream, (StringView){raw, n}, raw + n_raw);
}

StringView text_stream_finish(TextStream *stream) {
    bool held = stream->n_held > 0;
    stream->n_held = 0;
    return held ? sv(UTF8_REPLACEMENT) : sv("");
}

void text_stream_free(TextStream *stream) {
    free(stream->buffer);
    stream->buffer = NULL;
    stream->n_held = 0;
}
