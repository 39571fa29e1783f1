/* See tiny_vocabulary.h. */
#include "tests/tiny_vocabulary.h"

#include "tokenizer/text_stream.h"
#include "tokenizer/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

void tiny_start(Tiny *tiny) {
    *tiny = (Tiny){0};
    for (int i = 0; i < 94; i++) {
        tiny->characters[i][0] = (char)(0x21 + i);
        tiny->tokens[i] = (StringView){tiny->characters[i], 1};
    }
    tiny->tokens[94] = sv("\xC4\xA0");
    const char *more[] = {"ab", "bc", "abc", "<|c|>", "<t>", "<t>>"};
    for (int i = 0; i < 6; i++)
        tiny->tokens[TINY_AB + i] = sv(more[i]);
    for (int i = 0; i < TINY_COUNT; i++)
        tiny->types[i] = TOKEN_NORMAL;
    tiny->types[TINY_CONTROL] = TOKEN_CONTROL;
    tiny->types[TINY_ADDED] = tiny->types[TINY_LONGER] = TOKEN_USER_DEFINED;
    tiny->merges[0] = sv("b c");
    tiny->merges[1] = sv("a b");
    tiny->merges[2] = sv("ab c");
    tiny->vocabulary = vocabulary_empty(VOCABULARY_BYTE_LEVEL_BPE);
    tiny->vocabulary.pre_tokenizer = sv("gpt-2");
    tiny->vocabulary.n_tokens = TINY_COUNT;
    tiny->vocabulary.tokens = tiny->tokens;
    tiny->vocabulary.types = tiny->types;
    tiny->vocabulary.n_merges = 3;
    tiny->vocabulary.merges = tiny->merges;
}

void expect_refused(const Vocabulary *vocabulary, int code, const char *part) {
    Tokenizer *tokenizer = NULL;
    Error error = {0};
    assert_int_equal(tokenizer_open_vocabulary(&tokenizer, vocabulary, &error), code);
    assert_null(tokenizer);
    if (strstr(error.message, part) == NULL || strchr(error.message, ';') == NULL)
        fail_msg("'%s' lacks '%s' or a cure", error.message, part);
}

void expect_ids(const Tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *ids, size_t n) {
    TokenList tokens = {0};
    Error error = {0};
    if (tokenizer_encode(tokenizer, sv(text), flags, &tokens, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(tokens.count, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tokens.ids[i], ids[i]);
    token_list_free(&tokens);
}

StringView stream_all(const Tokenizer *tokenizer, const TokenList *tokens) {
    TextStream stream = text_stream_start(tokenizer, NULL, 0);
    Error error = {0};
    size_t length = 0, capacity = 64;
    char *text = malloc(capacity);
    for (size_t i = 0; i <= tokens->count; i++) {
        StringView part =
            i < tokens->count ? text_stream_next(&stream, tokens->ids[i], &error) : text_stream_finish(&stream);
        assert_int_equal(error.code, 0);
        assert_true(utf8_is_valid(part));
        while (length + part.length > capacity)
            text = realloc(text, capacity *= 2);
        assert_non_null(text);
        memcpy(text + length, part.bytes, part.length);
        length += part.length;
    }
    text_stream_free(&stream);
    return (StringView){text, length};
}
