/* Text as bytes: streams that hold half characters back, words of a megabyte, and UTF-8 itself. */
#include "tests/tiny_vocabulary.h"
#include "tests/vocabulary_fixture.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <utf8proc.h>

#include <cmocka.h>

static void expect_part(TextStream *stream, int32_t id, const char *text) {
    Error error = {0};
    StringView part = text_stream_next(stream, id, &error);
    if (!sv_is(part, text))
        fail_msg("token %d completes '%.*s', expected '%s'", id, SV_ARGS(part), text);
}

/* Byte tokens of a SentencePiece vocabulary are ids 3 to 258 in tok512: half characters wait, broken ones become
 * U+FFFD. */
static void test_stream_holds_characters(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    VocabularyFixture *fixture = vocabulary_fixture_open(directory, "tok512.vocabulary.json");
    Tokenizer *tokenizer = open_or_fail(&fixture->vocabulary);
    TextStream stream = text_stream_start(tokenizer, NULL, 0);
    expect_part(&stream, 3 + 0xF0, "");
    expect_part(&stream, 3 + 0x9F, "");
    expect_part(&stream, 3 + 0x98, "");
    expect_part(&stream, 3 + 0x80, "\xF0\x9F\x98\x80");
    expect_part(&stream, 3 + 0xE2, "");
    expect_part(&stream, 2, ""); /* control tokens have no text */
    expect_part(&stream, 3 + 0x82, "");
    expect_part(&stream, 3 + 0x41, UTF8_REPLACEMENT "A");
    expect_part(&stream, 3 + 0x80, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xFF, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xC3, "");
    expect_part(&stream, 3 + 0xC3, UTF8_REPLACEMENT);
    expect_part(&stream, 3 + 0xA9, "\xC3\xA9");
    expect_part(&stream, 1 << 20, "");
    expect_part(&stream, 3 + 0xE2, "");
    assert_true(sv_is(text_stream_finish(&stream), UTF8_REPLACEMENT));
    assert_true(sv_is(text_stream_finish(&stream), ""));
    text_stream_free(&stream);
    tokenizer_free(tokenizer);
    vocabulary_fixture_free(fixture);
}

/* One word of a megabyte, and no byte lost. In O(n²) steps the first of them would last until ctest ends the test. */
static void test_long_words(void **state) {
    (void)state;
    const char *names[] = {"gpt-2", "llama-bpe", "smollm", "qwen2"};
    const char *units[] = {"abc", "ab", " ", "1", "!", "\r\n", "\xE4\xBD\xA0"};
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);
    Tiny tiny;
    tiny_start(&tiny);
    for (size_t i = 0; i < 4; i++) {
        tiny.vocabulary.pre_tokenizer = sv(names[i]);
        Tokenizer *tokenizer = open_or_fail(&tiny.vocabulary);
        for (size_t j = 0; j < sizeof units / sizeof *units; j++) {
            size_t unit = strlen(units[j]), length = SIZE / unit * unit;
            for (size_t at = 0; at < length; at += unit)
                memcpy(text + at, units[j], unit);
            TokenList tokens = {0};
            Error error = {0};
            if (tokenizer_encode(tokenizer, (StringView){text, length}, 0, &tokens, &error) < 0)
                fail_msg("%s: '%s': %s", names[i], units[j], error.message);
            if ((unsigned char)units[j][0] < 0x80 && units[j][0] != '\r') {
                StringView back = stream_all(tokenizer, &tokens);
                assert_true(sv_equal(back, (StringView){text, length}));
                free((char *)back.bytes);
            }
            token_list_free(&tokens);
        }
        tokenizer_free(tokenizer);
    }
    free(text);
}

static void test_utf8(void **state) {
    (void)state;
    char out[64];
    const struct {
        const char *bytes, *repaired;
    } cases[] = {
        {"\xE2\x82", UTF8_REPLACEMENT},
        {"\xE2\x82z", UTF8_REPLACEMENT "z"},
        {"\xED\xA0\x80", UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF0\x9F\x98", UTF8_REPLACEMENT},
        {"\xC0\xAF", UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF4\x90\x80\x80", UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT UTF8_REPLACEMENT},
        {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StringView repaired = {out, utf8_repair(sv(cases[i].bytes), out)};
        assert_true(sv_is(repaired, cases[i].repaired));
    }
    /* Every code point but the surrogates is a character, and without its last byte the start of one. */
    for (int32_t code_point = 0; code_point < 0x110000; code_point++) {
        size_t n = (size_t)utf8proc_encode_char(code_point, (utf8proc_uint8_t *)out), length;
        bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
        assert_int_equal(utf8_scan(out, n, &length), surrogate ? UTF8_INVALID : UTF8_VALID);
        if (surrogate)
            continue;
        assert_int_equal(length, n);
        if (n > 1)
            assert_int_equal(utf8_scan(out, n - 1, &length), UTF8_INCOMPLETE);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_stream_holds_characters),
        cmocka_unit_test(test_long_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
