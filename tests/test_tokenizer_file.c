/* Tokenizers in files of their own: SentencePiece's .model, whole and damaged. */
#include "tests/vocabulary_fixture.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static StringView read_model(const char *path) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = malloc(1 << 16);
    assert_non_null(bytes);
    size_t length = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    return (StringView){bytes, length};
}

/* Writes `bytes` as a .model file and opens it; returns the status. */
static int open_bytes(StringView bytes, Error *error) {
    char path[] = "/tmp/stowkv_model_XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, bytes.bytes, bytes.length), (ssize_t)bytes.length);
    close(descriptor);
    Tokenizer *tokenizer;
    int status = tokenizer_open_file(&tokenizer, path, error);
    if (status == 0) {
        TokenList tokens = {0};
        tokenizer_encode(tokenizer, sv("Once upon <s> a time \xFF"), TOKENIZE_ADD_BOS | TOKENIZE_PARSE_SPECIAL, &tokens,
                         error);
        for (size_t i = 0; i < tokens.count; i++)
            assert_in_range(tokens.ids[i], 0, tokenizer_n_tokens(tokenizer) - 1);
        token_list_free(&tokens);
        tokenizer_free(tokenizer);
    }
    unlink(path);
    return status;
}

static void test_damaged_model_files(void **state) {
    (void)state;
    const char *data = data_directory();
    if (data == NULL)
        skip();
    char *path = join_path(data, "tok512.model");
    StringView model = read_model(path);
    free(path);
    Error error = {0};
    assert_int_equal(open_bytes(model, &error), 0);
    for (size_t length = 0; length < model.length; length += length < model.length - 200 ? 37 : 1) {
        assert_int_equal(open_bytes((StringView){model.bytes, length}, &error), ERROR_FORMAT);
        assert_non_null(strchr(error.message, ';'));
    }
    /* Any byte may be any other: an error or a working tokenizer, never a crash. */
    char *damaged = malloc(model.length);
    unsigned random = 1;
    for (int i = 0; i < 500; i++) {
        memcpy(damaged, model.bytes, model.length);
        for (int j = 0; j < 1 + i % 4; j++) {
            random = random * 1664525u + 1013904223u;
            damaged[(random >> 8) % model.length] = (char)(random >> 3);
        }
        int status = open_bytes((StringView){damaged, model.length}, &error);
        assert_true(status == 0 || status == ERROR_FORMAT);
    }
    free(damaged);
    assert_int_equal(open_bytes(sv("GGUF\3 this is not a SentencePiece model"), &error), ERROR_FORMAT);
    Tokenizer *tokenizer;
    assert_int_equal(tokenizer_open_file(&tokenizer, "/nonexistent/tok.model", &error), ERROR_IO);
    assert_int_equal(tokenizer_open_file(&tokenizer, data, &error), ERROR_IO);
    assert_non_null(strstr(error.message, "is a directory"));
    free((char *)model.bytes);
}

static void test_model_file_rules(void **state) {
    (void)state;
    const char *data = data_directory();
    if (data == NULL)
        skip();
    char *path = join_path(data, "tok512.model");
    Tokenizer *tokenizer;
    Error error = {0};
    assert_int_equal(tokenizer_open_file(&tokenizer, path, &error), 0);
    assert_int_equal(tokenizer_n_tokens(tokenizer), 512);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_true(tokenizer_is_end(tokenizer, 1) && tokenizer_is_end(tokenizer, 2) && !tokenizer_is_end(tokenizer, 300));
    /* The dummy prefix space is left out where a text starts, and only there. */
    TokenList tokens = {0};
    assert_int_equal(tokenizer_encode(tokenizer, sv("Once"), 0, &tokens, &error), 0);
    const int32_t bos = 1;
    TextStream stream = text_stream_start(tokenizer, &bos, 1);
    assert_memory_equal(text_stream_next(&stream, tokens.ids[0], &error).bytes, "O", 1);
    text_stream_free(&stream);
    stream = text_stream_start(tokenizer, tokens.ids, tokens.count);
    assert_memory_equal(text_stream_next(&stream, tokens.ids[0], &error).bytes, " O", 2);
    text_stream_free(&stream);
    token_list_free(&tokens);
    tokenizer_free(tokenizer);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_model_files),
        cmocka_unit_test(test_model_file_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
