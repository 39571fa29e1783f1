/* The tokenizer against Hugging Face's tokenizers and SentencePiece: cases from the fixture maker. */
#include "tests/tiny_vocabulary.h"
#include "tests/vocabulary_fixture.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void check_case(const Tokenizer *tokenizer, const char *name, const cJSON *item) {
    const char *hex = cJSON_GetObjectItemCaseSensitive(item, "text")->valuestring;
    unsigned flags = (unsigned)cJSON_GetObjectItemCaseSensitive(item, "flags")->valueint;
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(item, "ids");
    const cJSON *decoded = cJSON_GetObjectItemCaseSensitive(item, "decoded");
    StringView text = from_hex(hex);
    TokenList tokens = {0};
    Error error = {0};
    if (tokenizer_encode(tokenizer, text, flags, &tokens, &error) < 0)
        fail_msg("%s: %s", name, error.message);
    char what[400];
    snprintf(what, sizeof what, "%s: flags %u, text %.300s", name, flags, hex);
    check_ids(&tokens, ids, what);
    if (cJSON_IsString(decoded)) {
        StringView expected = from_hex(decoded->valuestring), streamed = stream_all(tokenizer, &tokens);
        if (!sv_equal(expected, streamed))
            fail_msg("%s: text %.300s: streams back as '%.*s'", name, hex, SV_ARGS(streamed));
        free((char *)expected.bytes);
        free((char *)streamed.bytes);
    }
    token_list_free(&tokens);
    free((char *)text.bytes);
}

static void check_cases(const char *name) {
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    cJSON *json = read_json(directory, name);
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    const cJSON *pre = cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer");
    VocabularyFixture *fixture = NULL;
    Tokenizer *tokenizer = NULL;
    Error error = {0};
    if (cJSON_IsString(model)) {
        const char *data = data_directory();
        if (data == NULL) {
            cJSON_Delete(json);
            skip();
        }
        char *path = join_path(data, model->valuestring);
        if (tokenizer_open_file(&tokenizer, path, 0, &error) < 0)
            fail_msg("%s", error.message);
        free(path);
    } else {
        const char *vocabulary = cJSON_GetObjectItemCaseSensitive(json, "vocabulary")->valuestring;
        fixture = vocabulary_fixture_open(directory, vocabulary);
        if (cJSON_IsString(pre))
            fixture->vocabulary.pre_tokenizer = sv(pre->valuestring);
        tokenizer = open_or_fail(&fixture->vocabulary);
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "cases")) check_case(tokenizer, name, item);
    tokenizer_free(tokenizer);
    vocabulary_fixture_free(fixture);
    cJSON_Delete(json);
}

static void test_gpt2_cases(void **state) {
    (void)state;
    check_cases("small.gpt-2.cases.json");
}

static void test_smollm_cases(void **state) {
    (void)state;
    check_cases("small.smollm.cases.json");
}

static void test_llama3_cases(void **state) {
    (void)state;
    check_cases("small.llama-bpe.cases.json");
}

static void test_qwen2_cases(void **state) {
    (void)state;
    check_cases("small.qwen2.cases.json");
}

static void test_cases_of_other_patterns(void **state) {
    (void)state;
    static const char *const NAMES[] = {
        "smaug-bpe",    "stablelm2", "minicpm5",       "seed-coder",  "bailingmoe", "tekken", "gpt-4o",
        "deepseek-llm", "default",   "deepseek-coder", "deepseek-v3", "falcon",     "bloom",  "viking",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "small.%s.cases.json", NAMES[i]);
        check_cases(name);
    }
}

/* Names that llama.cpp reads as a pattern which another name has here. */
static void test_names_of_pre_tokenizers(void **state) {
    (void)state;
    static const char *const NAMES[] = {
        "phi-2",   "mpt",       "olmo",      "jais",       "exaone4",    "roberta-bpe", "llama3",    "llama-v3",
        "pixtral", "falcon3",   "lfm2",      "dbrx",       "glm4",       "chatglm-bpe", "starcoder", "refact",
        "exaone",  "command-r", "megrez",    "hunyuan",    "kormo",      "llada-moe",   "llama4",    "deepseek-r1-qwen",
        "viking",  "poro-chat", "joyai-llm", "minerva-7b", "solar-open", "kanana2",
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        PreTokenizer *pre;
        Error error = {0};
        if (pre_tokenizer_open(&pre, sv(NAMES[i]), &error) < 0)
            fail_msg("%s: %s", NAMES[i], error.message);
        bool llama = pre_tokenizer_adds_bos(pre);
        assert_int_equal(llama, i >= 6 && i < 11);
        assert_int_equal(pre_tokenizer_ignores_merges(pre), llama);
        pre_tokenizer_free(pre);
    }
}

static void expect_guess(const char *directory, const char *name, const char *pre) {
    char file[96];
    snprintf(file, sizeof file, "%s.vocabulary.json", name);
    VocabularyFixture *fixture = vocabulary_fixture_open(directory, file);
    assert_string_equal(vocabulary_guess_pre_tokenizer(&fixture->vocabulary), pre);
    vocabulary_fixture_free(fixture);
}

/* What a vocabulary was trained with is told by it; so are those whose tokens are known. */
static void test_guesses(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    expect_guess(directory, "guess.gpt-2", "gpt-2");
    expect_guess(directory, "guess.smollm", "smollm");
    expect_guess(directory, "guess.smaug-bpe", "smaug-bpe");
    expect_guess(directory, "guess.qwen2", "qwen2");
    expect_guess(directory, "small", "llama-bpe"); /* it has <|begin_of_text|> */
    char *path = join_path(directory, "smollm2.vocabulary.json");
    if (access(path, F_OK) == 0)
        expect_guess(directory, "smollm2", "smollm");
    free(path);
}

static void test_sentencepiece_file_cases(void **state) {
    (void)state;
    check_cases("tok512.model.cases.json");
}

static void test_sentencepiece_rebuilt_cases(void **state) {
    (void)state;
    check_cases("tok512.rebuilt.cases.json");
    check_cases("tok512.collapsing.cases.json");   /* remove_extra_whitespaces */
    check_cases("tok512.normal_bytes.cases.json"); /* bytes have the type of normal tokens */
}

/* The real vocabulary is there only where the checkpoint was fetched before the fixtures were made. */
static void test_smollm2_cases(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *path = join_path(directory, "smollm2.vocabulary.json");
    bool there = access(path, R_OK) == 0;
    if (!there)
        fprintf(stderr, "SKIPPED: %s is not there; fetch the checkpoint and make the fixtures again\n", path);
    free(path);
    if (!there)
        skip();
    check_cases("smollm2.smollm.cases.json");
    check_cases("smollm2.llama-bpe.cases.json");
    check_cases("smollm2.qwen2.cases.json");
}

/* A case names another file of cases, or has its own. */
static void check_file(const char *directory, const char *folder, const cJSON *item) {
    const char *name = cJSON_GetObjectItemCaseSensitive(item, "file")->valuestring;
    const cJSON *others = cJSON_GetObjectItemCaseSensitive(item, "cases");
    cJSON *json = cJSON_IsString(others) ? read_json(directory, others->valuestring) : NULL;
    const cJSON *cases = json != NULL ? cJSON_GetObjectItemCaseSensitive(json, "cases")
                                      : cJSON_GetObjectItemCaseSensitive(item, "inline");
    char *path = join_path(folder, name);
    Tokenizer *tokenizer;
    Error error = {0};
    if (tokenizer_open_file(&tokenizer, path, 0, &error) < 0)
        fail_msg("%s", error.message);
    const cJSON *one;
    cJSON_ArrayForEach(one, cases) check_case(tokenizer, name, one);
    tokenizer_free(tokenizer);
    free(path);
    cJSON_Delete(json);
}

/* tokenizer.json as the library writes it, against the library; tiktoken's ranks against tiktoken. */
static void test_files(void **state) {
    (void)state;
    const char *directory = fixture_directory();
    if (directory == NULL)
        skip();
    char *folder = join_path(directory, "files");
    cJSON *json = read_json(folder, "cases.json");
    const cJSON *item;
    cJSON_ArrayForEach(item, json) check_file(directory, folder, item);
    cJSON_Delete(json);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_cases),
        cmocka_unit_test(test_smollm_cases),
        cmocka_unit_test(test_llama3_cases),
        cmocka_unit_test(test_qwen2_cases),
        cmocka_unit_test(test_cases_of_other_patterns),
        cmocka_unit_test(test_names_of_pre_tokenizers),
        cmocka_unit_test(test_guesses),
        cmocka_unit_test(test_sentencepiece_file_cases),
        cmocka_unit_test(test_sentencepiece_rebuilt_cases),
        cmocka_unit_test(test_smollm2_cases),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
