/* Tokenizers in files of their own, whole and damaged: SentencePiece's .model, tokenizer.json, tiktoken's ranks, and a
 * model's folder. */
#include "tests/vocabulary_fixture.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary_file.h"

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
    int status = tokenizer_open_file(&tokenizer, path, 0, error);
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
    assert_int_equal(tokenizer_open_file(&tokenizer, "/nonexistent/tok.model", 0, &error), ERROR_IO);
    assert_int_equal(tokenizer_open_file(&tokenizer, data, 0, &error), ERROR_IO);
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
    assert_int_equal(tokenizer_open_file(&tokenizer, path, 0, &error), 0);
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

/* ---- tokenizer.json and tiktoken's ranks */

static const char *text_of(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name)->valuestring;
}

static void expect_one_line(const char *file, const Error *error, const char *part) {
    if (strstr(error->message, part) == NULL || strchr(error->message, ';') == NULL ||
        strchr(error->message, '\n') != NULL)
        fail_msg("%s: '%s' lacks '%s' or a cure", file, error->message, part);
}

static void test_refused(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *folder = join_path(directory, "files");
    cJSON *json = read_json(folder, "bad.json");
    const cJSON *item, *part;
    cJSON_ArrayForEach(item, json) {
        char *path = join_path(folder, text_of(item, "file"));
        Tokenizer *tokenizer = NULL;
        Error error = {0};
        if (tokenizer_open_file(&tokenizer, path, 0, &error) == 0)
            fail_msg("%s is read", path);
        assert_null(tokenizer);
        assert_non_null(strstr(error.message, path));
        cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(item, "mention"))
            expect_one_line(path, &error, part->valuestring);
        free(path);
    }
    cJSON_Delete(json);
    free(folder);
}

/* Cut anywhere, and with any byte another: an error or a working tokenizer, as ranks may be that end with a line. */
static void test_damaged_json_and_ranks(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    static const char *const FILES[] = {"files/llama2.json", "files/qwen2.json", "files/tiktoken.model"};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char *path = join_path(directory, FILES[i]), *damaged = malloc(1 << 16);
        StringView whole = read_model(path);
        Error error = {0};
        unsigned random = 1;
        assert_int_equal(open_bytes(whole, &error), 0);
        for (size_t length = 1; length < whole.length - 2; length += whole.length / 40)
            assert_true(open_bytes((StringView){whole.bytes, length}, &error) < 0 || whole.bytes[0] != '{');
        for (int j = 0; j < 60; j++) {
            memcpy(damaged, whole.bytes, whole.length);
            for (int k = 0; k < 1 + j % 3; k++) {
                random = random * 1664525u + 1013904223u;
                damaged[(random >> 8) % whole.length] = (char)(random >> 3);
            }
            open_bytes((StringView){damaged, whole.length}, &error);
        }
        free((char *)whole.bytes);
        free(damaged);
        free(path);
    }
}

/* Rows of a model's matrices beyond the tokens are unused tokens; a few added tokens beyond the rows are left out. */
static void test_number_of_tokens(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *path = join_path(directory, "files/phi3.json"), *ranks = join_path(directory, "files/tiktoken.model");
    static const struct {
        size_t n_vocab, n_tokens, n_notes;
    } CASES[] = {{0, 515, 0}, {515, 515, 0}, {600, 600, 0}, {513, 513, 1}, {511, 515, 0}, {100000, 515, 0}};
    Tokenizer *tokenizer;
    Error error = {0};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        assert_int_equal(tokenizer_open_file(&tokenizer, path, CASES[i].n_vocab, &error), 0);
        assert_int_equal(tokenizer_n_tokens(tokenizer), CASES[i].n_tokens);
        assert_int_equal(tokenizer_file(tokenizer)->n_notes, CASES[i].n_notes);
        assert_int_equal(tokenizer_special(tokenizer, sv("[INST]")), CASES[i].n_tokens < 515 ? -1 : 514);
        tokenizer_free(tokenizer);
    }
    assert_true(tokenizer_open_file(&tokenizer, ranks, 1000, &error) < 0);
    expect_one_line(ranks, &error, "the model has 1000");
    free(path);
    free(ranks);
}

/* Names of special tokens of Llama 3.1, and what generation ends at. */
static void test_special_tokens_of_ranks(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *path = join_path(directory, "files/tiktoken.model");
    Tokenizer *tokenizer;
    Error error = {0};
    assert_int_equal(tokenizer_open_file(&tokenizer, path, 0, &error), 0);
    int32_t first = (int32_t)tokenizer_n_tokens(tokenizer) - 256;
    assert_int_equal(tokenizer_bos(tokenizer), first);
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_special(tokenizer, sv("<|eot_id|>")), first + 9);
    assert_int_equal(tokenizer_special(tokenizer, sv("<|reserved_special_token_2|>")), first + 11);
    assert_int_equal(tokenizer_special(tokenizer, sv("<|reserved_special_token_246|>")), first + 255);
    for (int32_t id = first - 3; id < first + 256; id++)
        assert_int_equal(tokenizer_is_end(tokenizer, id),
                         id == first || id == first + 1 || id == first + 8 || id == first + 9);
    tokenizer_free(tokenizer);
    free(path);
}

/* ---- Folders */

static void check_folder(const Vocabulary *vocabulary, const cJSON *item) {
    const cJSON *ends = cJSON_GetObjectItemCaseSensitive(item, "ends"), *end;
    Tokenizer *tokenizer = open_or_fail(vocabulary);
    assert_int_equal(tokenizer_bos(tokenizer), cJSON_GetObjectItemCaseSensitive(item, "bos")->valueint);
    assert_int_equal(tokenizer_eos(tokenizer), cJSON_GetObjectItemCaseSensitive(item, "eos")->valueint);
    assert_int_equal(tokenizer_adds_bos(tokenizer), cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "adds_bos")));
    assert_true(sv_is(vocabulary->chat_template, text_of(item, "template")));
    assert_int_equal(vocabulary->n_end_ids, cJSON_GetArraySize(ends));
    cJSON_ArrayForEach(end, ends) assert_true(tokenizer_is_end(tokenizer, end->valueint));
    tokenizer_free(tokenizer);
}

/* A folder's files together; what is wrong shows in them, or in what they come to. */
static void test_folders(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *folders = join_path(directory, "files/folders");
    cJSON *json = read_json(folders, "folders.json");
    VocabularyFile *file;
    Error error = {0};
    const cJSON *item;
    cJSON_ArrayForEach(item, json) {
        const char *name = text_of(item, "folder");
        const cJSON *mention = cJSON_GetObjectItemCaseSensitive(item, "mention");
        char *path = join_path(folders, name), *folder = join_path(path, "");
        int status = vocabulary_folder_open(&file, folder, 0, &error);
        if (status < 0 && mention == NULL)
            fail_msg("%s", error.message);
        if (mention == NULL)
            check_folder(&file->vocabulary, item);
        Tokenizer *tokenizer = NULL;
        if (mention != NULL && status == 0)
            assert_true(tokenizer_open_vocabulary(&tokenizer, &file->vocabulary, &error) < 0);
        if (mention != NULL)
            expect_one_line(name, &error, mention->valuestring);
        vocabulary_file_free(file);
        free(folder);
        free(path);
    }
    assert_int_equal(vocabulary_folder_open(&file, "/nonexistent/", 0, &error), 0);
    assert_null(file);
    cJSON_Delete(json);
    free(folders);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_model_files),
        cmocka_unit_test(test_model_file_rules),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged_json_and_ranks),
        cmocka_unit_test(test_number_of_tokens),
        cmocka_unit_test(test_special_tokens_of_ranks),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
