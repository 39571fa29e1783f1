/* Text as it comes in: without what editors put around it; and of evaluations against Python, rows as the loader of the
 * data set wikitext makes them, and what is no text. */
#include "base/text_file.h"
#include "eval/perplexity/text_rows.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utf8proc.h>

#include <cmocka.h>

/* A heap block of exactly the text, so that AddressSanitizer sees a byte too many. */
static void check_join(const char *name, const char *text, size_t size, const char *expected, size_t expected_size) {
    char *joined;
    size_t length;
    Error error = {0};
    if (text_join_rows((StringView){text, size}, &joined, &length, &error) < 0)
        fail_msg("%s", error.message);
    if (length != expected_size || memcmp(joined, expected, length) != 0)
        fail_msg("%s: %zu bytes, expected %zu, or others of them", name, length, expected_size);
    free(joined);
}

static void check_fixture(const char *folder, const char *text_name, const char *joined_name) {
    size_t size, expected_size;
    char *expected = fixture_load(fixture_path("STOWKV_FIXTURES", joined_name), &expected_size);
    char *text = fixture_load(fixture_path(folder, text_name), &size);
    check_join(text_name, text, size, expected, expected_size);
    free(text);
    free(expected);
}

static void test_rows_match_python(void **state) {
    (void)state;
    const char *const names[] = {"plain",        "no_final_newline",      "blank_ends",
                                 "one_newline",  "blank_without_newline", "white_space_of_unicode",
                                 "inside_lines", "carriage_returns",      "many_scripts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[64], joined[64];
        snprintf(text, sizeof text, "perplexity/rows/%s.txt", names[i]);
        snprintf(joined, sizeof joined, "perplexity/rows/%s.joined", names[i]);
        check_fixture("STOWKV_FIXTURES", text, joined);
    }
}

static void test_wikitext_matches_python(void **state) {
    (void)state;
    check_fixture("STOWKV_DATA", "wiki.test.raw", "perplexity/rows/wiki.joined");
}

static void test_rows_by_hand(void **state) {
    (void)state;
    check_join("empty", "", 0, "", 0);
    check_join("one", "a", 1, "a", 1);
    check_join("two", "a\nb\n", 4, "a\n\n\nb\n", 6);
    check_join("blank between", "a\n \nb", 5, "a\n\n\n\n\nb", 7);
}

/* A line of one character is blank if it is one that str.strip() removes; every character there is. */
static void test_white_space(void **state) {
    (void)state;
    size_t size, n_spaces = 0;
    int32_t *spaces = fixture_load(fixture_path("STOWKV_FIXTURES", "perplexity/white_space"), &size);
    for (uint32_t code = 0; code < 0x110000; code++) {
        if (code >= 0xD800 && code < 0xE000)
            continue;
        bool is_space = n_spaces < size / sizeof *spaces && (uint32_t)spaces[n_spaces] == code;
        char line[4];
        size_t n = (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)line), length;
        char *joined;
        Error error = {0};
        n_spaces += is_space;
        assert_int_equal(text_join_rows((StringView){line, n}, &joined, &length, &error), 0);
        if (length != (is_space ? 0 : n))
            fail_msg("U+%04X: %zu bytes are left of a line of %zu", code, length, n);
        free(joined);
    }
    assert_int_equal(n_spaces, size / sizeof *spaces);
    free(spaces);
}

static void check_text(const char *bytes, size_t n, const char *expected) {
    Error error = {0};
    char *copy = malloc(n > 0 ? n : 1);
    memcpy(copy, bytes, n);
    int status = text_check((StringView){copy, n}, "the/path", &error);
    free(copy);
    if (expected == NULL) {
        assert_int_equal(status, 0);
        return;
    }
    assert_int_equal(status, ERROR_FORMAT);
    if (strstr(error.message, expected) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, expected);
}

static void test_what_is_text(void **state) {
    (void)state;
    check_text("", 0, NULL);
    check_text("plain\r\n\ttext", 12, NULL);
    check_text("Z\xC3\xBCrich \xE6\x9D\xB1 \xF0\x9F\x98\x80", 16, NULL);
    check_text("ab\0cd", 5, "the/path: byte 2 is NUL");
    check_text("\0", 1, "byte 0 is NUL");
    check_text("caf\xE9 au lait", 12, "the/path: byte 3 is not UTF-8"); /* Latin-1 */
    check_text("caf\xC3", 4, "byte 3 is not UTF-8");                    /* cut within a character */
    check_text("\xF0\x9F\x98", 3, "byte 0 is not UTF-8");
    check_text("a\xED\xA0\x80", 4, "byte 1 is not UTF-8"); /* a surrogate */
    check_text("a\xC0\x80", 3, "byte 1 is not UTF-8");     /* an overlong NUL */
    check_text("\xFF\xFE"
               "a",
               3, "byte 0 is not UTF-8"); /* UTF-16 */
}

/* What a file of such bytes is read as, through a pipe. The bytes are those that Notepad, DOS and CP/M write. */
static const struct {
    const char *bytes;
    size_t n;
    const char *text;
    size_t length, n_crlf;
} FILES[] = {
    {"", 0, "", 0, 0},
    {"\xEF\xBB\xBF", 3, "", 0, 0},
    {"\xEF\xBB\xBFHi", 5, "Hi", 2, 0},
    {"\xEF\xBB", 2, "\xEF\xBB", 2, 0},
    {"a\xEF\xBB\xBF", 4, "a\xEF\xBB\xBF", 4, 0}, /* a character, not a mark */
    {"a\n", 2, "a\n", 2, 0},
    {"\n", 1, "\n", 1, 0},
    {"a\r\nb\r\n", 6, "a\nb\n", 4, 2},
    {"\r\n\r\n", 4, "\n\n", 2, 2},
    {"a\rb\r", 4, "a\rb\r", 4, 0},
    {"a\r\r\n", 4, "a\r\n", 3, 1},
    {"a\r\n\x1A", 4, "a\n", 2, 1},
    {"a\x1A\x1A\x1A", 4, "a", 1, 0},
    {"\x1A", 1, "", 0, 0},
    {"a\x1A"
     "b",
     3,
     "a\x1A"
     "b",
     3, 0},
    {"\xEF\xBB\xBF\x1A", 4, "", 0, 0},
    {"ab\0cd\r\n\0", 8, "ab\0cd\n\0", 7, 1},
    {"\xFF", 1, "\xFF", 1, 0},
};

static int read_through_pipe(TextFile *file, const char *bytes, size_t n, Error *error) {
    int ends[2], before = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], bytes, n), n);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    int status = text_file_read(file, "-", 8, error);
    dup2(before, STDIN_FILENO);
    close(ends[0]);
    close(before);
    return status;
}

static void test_what_editors_add(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        TextFile file;
        Error error = {0};
        assert_int_equal(read_through_pipe(&file, FILES[i].bytes, FILES[i].n, &error), 0);
        size_t n_crlf = text_file_clean(&file);
        if (n_crlf != FILES[i].n_crlf || !sv_equal(file.text, (StringView){FILES[i].text, FILES[i].length}))
            fail_msg("file %zu: %zu bytes, %zu CRLF", i, file.text.length, n_crlf);
        text_file_free(&file);
    }
}

/* As `$(cat file)` gives it, and a line without its newline. */
static void test_arguments(void **state) {
    (void)state;
    static const char *const CASES[][2] = {
        {"", ""},           {"Hi", "Hi"}, {"\xEF\xBB\xBFHi\r", "Hi"}, {"a\r\nb\r", "a\nb"}, {"a\rb", "a\rb"},
        {"Hi\r\x1A", "Hi"}, {"\r", ""},   {"\xEF\xBB\xBF", ""}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *text = strdup(CASES[i][0]);
        assert_string_equal(text_clean_argument(text), CASES[i][1]);
        free(text);
    }
}

/* In the encodings of iconv -t UTF-16 and UTF-32, of either byte order. */
static void test_wide_encodings(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *name;
        size_t n;
    } CASES[] = {{"\xFF\xFEH\0", "UTF-16", 4},
                 {"\xFE\xFF\0H", "UTF-16", 4},
                 {"\xFF\xFE\0\0H\0\0\0", "UTF-32", 8},
                 {"\0\0\xFE\xFF\0\0\0H", "UTF-32", 8}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        TextFile file;
        Error error = {0};
        assert_int_equal(read_through_pipe(&file, CASES[i].bytes, CASES[i].n, &error), ERROR_FORMAT);
        assert_non_null(strstr(error.message, CASES[i].name));
        assert_non_null(strstr(error.message, "stdin: "));
        text_file_free(&file);
    }
}

/* Longer than a pipe and a buffer hold. */
static void test_large_text(void **state) {
    (void)state;
    size_t size = 0;
    char *bytes = fixture_load(fixture_path("STOWKV_DATA", "wiki.test.raw"), &size);
    TextFile file;
    Error error = {0};
    assert_int_equal(text_file_read(&file, fixture_path("STOWKV_DATA", "wiki.test.raw"), TEXT_FILE_MAX, &error), 0);
    assert_int_equal(text_file_clean(&file), 0);
    assert_true(sv_equal(file.text, (StringView){bytes, size}));
    text_file_free(&file);
    free(bytes);
    assert_int_equal(text_file_read(&file, "/dev/zero", 100000, &error), ERROR_FORMAT);
    assert_non_null(strstr(error.message, "/dev/zero: is longer than 100000 bytes"));
    text_file_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_match_python), cmocka_unit_test(test_wikitext_matches_python),
        cmocka_unit_test(test_rows_by_hand),      cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_what_is_text),      cmocka_unit_test(test_what_editors_add),
        cmocka_unit_test(test_arguments),         cmocka_unit_test(test_wide_encodings),
        cmocka_unit_test(test_large_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
