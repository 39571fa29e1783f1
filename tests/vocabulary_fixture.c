/* See vocabulary_fixture.h. */
#include "tests/vocabulary_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *directory_from(const char *variable, const char *what) {
    const char *directory = getenv(variable);
    if (directory == NULL || directory[0] == '\0') {
        fprintf(stderr, "SKIPPED: %s is not set; it names the directory of %s\n", variable, what);
        return NULL;
    }
    return directory;
}

const char *fixture_directory(void) {
    static char path[4096];
    const char *root = directory_from("STOWKV_FIXTURES", "what the fixture maker wrote");
    if (root == NULL)
        return NULL;
    snprintf(path, sizeof path, "%s/tokenizer", root);
    char *probe = join_path(path, "chat.json");
    FILE *file = fopen(probe, "rb");
    if (file == NULL)
        fprintf(stderr, "SKIPPED: %s is not there; run the fixture maker\n", probe);
    free(probe);
    if (file == NULL)
        return NULL;
    fclose(file);
    return path;
}

const char *data_directory(void) {
    return directory_from("STOWKV_DATA", "tok512.model");
}

char *join_path(const char *directory, const char *name) {
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    assert_non_null(path);
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

cJSON *read_json(const char *directory, const char *name) {
    char *path = join_path(directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("cannot open %s", path);
    size_t size = 0, capacity = 1 << 20;
    char *text = malloc(capacity);
    for (size_t n; (n = fread(text + size, 1, capacity - size, file)) > 0;) {
        size += n;
        if (size == capacity)
            text = realloc(text, capacity *= 2);
        assert_non_null(text);
    }
    fclose(file);
    cJSON *json = cJSON_ParseWithLength(text, size);
    if (json == NULL)
        fail_msg("%s is not JSON", path);
    free(text);
    free(path);
    return json;
}

StringView from_hex(const char *hex) {
    size_t length = strlen(hex) / 2;
    char *bytes = malloc(length + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++) {
        const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[i] = (char)strtoul(digits, NULL, 16);
    }
    return (StringView){bytes, length};
}

static int64_t number(const cJSON *json, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    assert_true(cJSON_IsNumber(item));
    return (int64_t)item->valuedouble;
}

static StringView *strings(const cJSON *array) {
    StringView *views = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof *views);
    assert_non_null(views);
    size_t i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array) views[i++] = sv(item->valuestring);
    return views;
}

VocabularyFixture *vocabulary_fixture_open(const char *directory, const char *name) {
    VocabularyFixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    cJSON *json = fixture->json = read_json(directory, name);
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(json, "tokens");
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(json, "merges");
    const cJSON *scores = cJSON_GetObjectItemCaseSensitive(json, "scores");
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(json, "types");
    const char *kind = cJSON_GetObjectItemCaseSensitive(json, "kind")->valuestring;
    size_t n_tokens = (size_t)cJSON_GetArraySize(tokens), i = 0;
    fixture->tokens = strings(tokens);
    fixture->merges = strings(merges);
    const cJSON *item;
    if (cJSON_IsArray(scores)) {
        fixture->scores = calloc(n_tokens, sizeof *fixture->scores);
        cJSON_ArrayForEach(item, scores) fixture->scores[i++] = (float)item->valuedouble;
    }
    fixture->types = calloc(n_tokens, sizeof *fixture->types);
    i = 0;
    cJSON_ArrayForEach(item, types) fixture->types[i++] = item->valueint;
    fixture->vocabulary = (Vocabulary){
        .kind = strcmp(kind, "sentencepiece") == 0 ? VOCABULARY_SENTENCEPIECE : VOCABULARY_BYTE_LEVEL_BPE,
        .pre_tokenizer = sv(cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer")->valuestring),
        .n_tokens = n_tokens,
        .tokens = fixture->tokens,
        .scores = fixture->scores,
        .types = fixture->types,
        .n_merges = (size_t)cJSON_GetArraySize(merges),
        .merges = fixture->merges,
        .bos_id = number(json, "bos_id"),
        .eos_id = number(json, "eos_id"),
        .eot_id = number(json, "eot_id"),
        .unknown_id = number(json, "unknown_id"),
        .add_bos = (int)number(json, "add_bos"),
        .add_eos = (int)number(json, "add_eos"),
        .add_space_prefix = (int)number(json, "add_space_prefix"),
        .remove_extra_spaces = cJSON_HasObjectItem(json, "remove_extra_spaces"),
        .chat_template = {"", 0},
    };
    return fixture;
}

void vocabulary_fixture_free(VocabularyFixture *fixture) {
    if (fixture == NULL)
        return;
    cJSON_Delete(fixture->json);
    free(fixture->tokens);
    free(fixture->merges);
    free(fixture->scores);
    free(fixture->types);
    free(fixture);
}

Tokenizer *open_or_fail(const Vocabulary *vocabulary) {
    Tokenizer *tokenizer;
    Error error = {0};
    if (tokenizer_open_vocabulary(&tokenizer, vocabulary, &error) < 0)
        fail_msg("%s", error.message);
    return tokenizer;
}

void check_ids(const TokenList *tokens, const cJSON *ids, const char *what) {
    size_t i = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, ids) {
        if (i >= tokens->count || tokens->ids[i] != id->valueint)
            fail_msg("%s: token %zu is %d, expected %d", what, i, i < tokens->count ? tokens->ids[i] : -1,
                     id->valueint);
        i++;
    }
    if (i != tokens->count)
        fail_msg("%s: %zu tokens, expected %zu", what, tokens->count, i);
}
