/* See tiktoken.h. */
#include "tokenizer/tiktoken.h"

#include "base/checked.h"
#include "tokenizer/byte_alphabet.h"

#include <stdio.h>
#include <stdlib.h>

/* A token's base64 is short: merges are looked for at each place at which a token falls into two. */
enum { N_SPECIAL = 256, MAX_BASE64 = 1024, MAX_SPECIAL_TEXT = 40 };

/* Meta's names, in order; what is "" is reserved, and counted from 2 on behind the two that have a number here. */
static const char *const SPECIAL[] = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
};
enum { N_NAMED = sizeof SPECIAL / sizeof *SPECIAL, FIRST_RESERVED = 2, BOS = 0, EOS = 1 };

/* ---- Lines */

/* Six bits, or -1. */
static int digit_of(char c) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c != '\0' ? strchr(DIGITS, c) : NULL;
    return found != NULL ? (int)(found - DIGITS) : -1;
}

/* Bytes of base64 with its padding to `out` (3 / 4 of the text); false where it is none, or has bits left over. */
static bool decode(StringView text, char *out, size_t *length) {
    *length = 0;
    if (text.length == 0 || text.length % 4 != 0)
        return false;
    size_t padding = text.bytes[text.length - 1] != '=' ? 0 : text.bytes[text.length - 2] != '=' ? 1 : 2;
    unsigned bits = 0;
    for (size_t i = 0; i < text.length - padding; i++) {
        int digit = digit_of(text.bytes[i]);
        if (digit < 0)
            return false;
        bits = (bits << 6 | (unsigned)digit) & 0xFFFFFF;
        if (i % 4 > 0)
            out[(*length)++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    return padding == 0 || (bits & ((1u << 2 * padding) - 1)) == 0;
}

typedef struct Line {
    StringView base64, rank;
} Line;

/* Takes a line off; false where it is not two words. */
static bool next_line(StringView *rest, Line *line) {
    size_t end = sv_find(*rest, sv("\n"), 0), behind = end < rest->length ? end + 1 : end;
    StringView text = {rest->bytes, end > 0 && rest->bytes[end - 1] == '\r' ? end - 1 : end};
    size_t space = sv_find(text, sv(" "), 0);
    *rest = (StringView){rest->bytes + behind, rest->length - behind};
    if (space >= text.length)
        return false;
    *line = (Line){{text.bytes, space}, {text.bytes + space + 1, text.length - space - 1}};
    return true;
}

static bool rank_is(StringView text, size_t rank) {
    char expected[24];
    return sv_equal(text, (StringView){expected, (size_t)snprintf(expected, sizeof expected, "%zu", rank)});
}

bool tiktoken_recognises(StringView bytes) {
    char token[MAX_BASE64];
    size_t length;
    Line line;
    bytes.length = at_most(bytes.length, 256);
    return next_line(&bytes, &line) && decode(line.base64, token, &length) && line.rank.length > 0 &&
           line.rank.bytes[0] >= '0' && line.rank.bytes[0] <= '9';
}

/* ---- Tokens */

static size_t count_lines(StringView bytes) {
    size_t n = 0;
    for (Line line; bytes.length > 0; n++)
        next_line(&bytes, &line);
    return n;
}

/* Tokens in the byte alphabet, which takes two bytes at most for one of theirs. */
static int read_ranks(StringView bytes, size_t n_ranks, StringView *tokens, char *text, const char *path,
                      Error *error) {
    char token[MAX_BASE64];
    for (size_t rank = 0; rank < n_ranks; rank++) {
        Line line;
        size_t length;
        if (!next_line(&bytes, &line))
            return error_set(error, ERROR_FORMAT, "%s: line %zu is no token and its rank; fetch it again", path,
                             rank + 1);
        if (line.base64.length > MAX_BASE64 || !decode(line.base64, token, &length))
            return error_set(error, ERROR_FORMAT,
                             "%s: line %zu has '%.*s', which is no base64 of a token; fetch it again", path, rank + 1,
                             (int)at_most(line.base64.length, 64), line.base64.bytes);
        if (!rank_is(line.rank, rank))
            return error_set(error, ERROR_FORMAT,
                             "%s: line %zu has rank '%.*s', and %zu comes next; fetch it again, or use a checkpoint in "
                             "GGUF",
                             path, rank + 1, (int)at_most(line.rank.length, 24), line.rank.bytes, rank);
        tokens[rank] = (StringView){text, byte_alphabet_write((StringView){token, length}, text)};
        text += tokens[rank].length;
    }
    return 0;
}

static void name_special(StringView *tokens, int32_t *types, size_t first, char *text) {
    for (size_t i = 0; i < N_SPECIAL; i++, text += MAX_SPECIAL_TEXT) {
        int length = i < N_NAMED ? snprintf(text, MAX_SPECIAL_TEXT, "%s", SPECIAL[i])
                                 : snprintf(text, MAX_SPECIAL_TEXT, "<|reserved_special_token_%zu|>",
                                            i - N_NAMED + FIRST_RESERVED);
        tokens[first + i] = (StringView){text, (size_t)length};
        types[first + i] = TOKEN_CONTROL;
    }
}

int tiktoken_read(VocabularyFile *file, StringView bytes, const char *path, size_t n_vocab, Error *error) {
    Vocabulary *vocabulary = &file->vocabulary;
    size_t n_ranks = count_lines(bytes), n_tokens = n_ranks + N_SPECIAL;
    if (n_vocab > 0 && n_tokens != n_vocab)
        return error_set(
            error, ERROR_UNSUPPORTED,
            "%s: %zu ranks of tiktoken, %zu tokens with Llama 3's special ones, and the model has %zu; other "
            "models' special tokens are not known: name its tokenizer.json",
            path, n_ranks, n_tokens, n_vocab);
    StringView *tokens = vocabulary_allocate(file, n_tokens, sizeof *tokens, error);
    int32_t *types = vocabulary_allocate(file, n_tokens, sizeof *types, error);
    char *text = vocabulary_allocate(file, 2 * bytes.length, 1, error);
    char *names = vocabulary_allocate(file, N_SPECIAL, MAX_SPECIAL_TEXT, error);
    if (tokens == NULL || types == NULL || text == NULL || names == NULL)
        return error->code;
    for (size_t rank = 0; rank < n_ranks; rank++)
        types[rank] = TOKEN_NORMAL;
    if (read_ranks(bytes, n_ranks, tokens, text, path, error) < 0)
        return error->code;
    name_special(tokens, types, n_ranks, names);
    vocabulary->kind = VOCABULARY_BYTE_LEVEL_BPE;
    vocabulary->pre_tokenizer = sv("llama-bpe");
    vocabulary->n_tokens = n_tokens;
    vocabulary->tokens = tokens;
    vocabulary->types = types;
    vocabulary->merges_by_id = true;
    vocabulary->bos_id = (int64_t)n_ranks + BOS;
    vocabulary->eos_id = (int64_t)n_ranks + EOS;
    vocabulary->add_bos = 1;
    return 0;
}
