/* Damaged, truncated and mismatched input: every refusal is an error of one line with a cause and a cure, never a crash
 * or a hang. This program is linked with -Wl,--wrap for mapped_file_open and mapped_file_close, so that checkpoints lie
 * in heap memory of exactly their size: AddressSanitizer then sees a read of one byte too many, which the zeros between
 * the end of a mapped file and the end of its page would hide. */
#define _GNU_SOURCE
#include "base/simd/detect.h"
#include "checkpoints/open.h"
#include "cpu/backend.h"
#include "session/session.h"
#include "tests/fixture_files.h"
#include "tokenizer/text_stream.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HANG_SECONDS 60

int __real_mapped_file_open(MappedFile *file, const char *path, Error *error);
void __real_mapped_file_close(MappedFile *file);
int __wrap_mapped_file_open(MappedFile *file, const char *path, Error *error);
void __wrap_mapped_file_close(MappedFile *file);
void __wrap_mapped_file_let_go(const uint8_t *data, size_t size);

int __wrap_mapped_file_open(MappedFile *file, const char *path, Error *error) {
    MappedFile mapped;
    *file = (MappedFile){0};
    if (__real_mapped_file_open(&mapped, path, error) < 0)
        return error->code;
    void *copy = malloc(mapped.size);
    assert_non_null(copy);
    memcpy(copy, mapped.data, mapped.size);
    *file = (MappedFile){copy, mapped.size};
    __real_mapped_file_close(&mapped);
    return 0;
}

void __wrap_mapped_file_close(MappedFile *file) {
    free((void *)file->data);
    *file = (MappedFile){0};
}

/* The heap has no file behind it from which its pages would come back. */
void __wrap_mapped_file_let_go(const uint8_t *data, size_t size) {
    (void)data;
    (void)size;
}

/* A folder for the files that the tests make. */
static char folder[256];

static int make_folder(void **state) {
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/stowkv-test-XXXXXX", parent != NULL ? parent : "/tmp");
    return mkdtemp(folder) == NULL || chmod(folder, 0755) != 0;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

static const char *in_folder(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static int run_context(Model *model, Error *error) {
    const int32_t tokens[] = {0, 1, 2};
    Context context;
    size_t n_ctx = model->checkpoint.config.n_ctx_train, n_vocab = model->checkpoint.config.n_vocab;
    size_t n_tokens = n_vocab < 3 ? n_vocab : 3;
    if (n_ctx > 8)
        n_ctx = 8;
    if (n_tokens > n_ctx)
        n_tokens = n_ctx;
    KvPolicy policy = kv_policy_full();
    if (context_open(&context, model, &policy, n_ctx, 4, error) < 0)
        return error->code;
    int status = forward(&context, tokens, n_tokens, LOGITS_ALL, error);
    context_close(&context);
    return status;
}

static int run_tokenizer(const Model *model, Error *error) {
    const Vocabulary *vocabulary = &model->checkpoint.vocabulary;
    Tokenizer *tokenizer;
    TokenList tokens = {0};
    if (vocabulary->kind == VOCABULARY_NONE)
        return 0;
    if (tokenizer_open_vocabulary(&tokenizer, vocabulary, error) < 0)
        return error->code;
    int status =
        tokenizer_encode(tokenizer, sv("ab a<|x|>\xff"), TOKENIZE_ADD_BOS | TOKENIZE_PARSE_SPECIAL, &tokens, error);
    TextStream stream = text_stream_start(tokenizer, NULL, 0);
    for (size_t i = 0; i < tokens.count && status == 0; i++) {
        error->code = 0;
        text_stream_next(&stream, tokens.ids[i], error);
        status = error->code;
    }
    text_stream_free(&stream);
    token_list_free(&tokens);
    tokenizer_free(tokenizer);
    return status;
}

/* Does with a checkpoint all that a program would: opens it, reads a few tokens, encodes and decodes a text. */
static int open_and_run(const char *path, Error *error) {
    Backend *backend;
    Model model;
    *error = (Error){0};
    fixture_hangs_after(HANG_SECONDS);
    if (cpu_backend_open(&backend, cpu_best_simd_level(), 1, error) < 0 || model_open(&model, path, backend, error) < 0)
        return error->code;
    int status = run_context(&model, error);
    if (status == 0)
        status = run_tokenizer(&model, error);
    model_close(&model);
    return status;
}

/* Whether `message` says `text`, in any case. The file's own name, which often says it too, does not count. */
static bool mentions(const char *message, const char *path, const char *text) {
    char rest[sizeof((Error *)0)->message];
    snprintf(rest, sizeof rest, "%s", message);
    for (char *found = strstr(rest, path); found != NULL; found = strstr(rest, path))
        memmove(found, found + strlen(path), strlen(found + strlen(path)) + 1);
    return strcasestr(rest, text) != NULL;
}

/* What is wrong with a failed call's message; NULL when it has a cause and a cure in one line. */
static const char *message_fault(int status, const Error *error) {
    const char *message = error->message, *cure = strrchr(message, ';');
    if (status >= 0)
        return "it succeeded";
    if (error->code != status)
        return "the code differs from the status";
    if (message[0] == '\0')
        return "the message is empty";
    if (message[strcspn(message, "\n\r")] != '\0')
        return "the message has several lines";
    if (cure == NULL || cure[1] != ' ' || cure[2] == '\0')
        return "the message has no cure";
    return NULL;
}

static void assert_refused(const char *path, const char *mention) {
    Error error;
    const char *fault = message_fault(open_and_run(path, &error), &error);
    if (fault == NULL && !mentions(error.message, path, mention))
        fault = "the message does not name the fault";
    if (fault != NULL)
        fail_msg("%s: %s ('%s' expected)\n  %s", path, fault, mention, error.message);
}

/* One item of expected.json; prints what is wrong with it. */
static bool case_passes(const cJSON *item) {
    char name[256];
    const cJSON *mention;
    Error error;
    snprintf(name, sizeof name, "bad/%s", cJSON_GetObjectItem(item, "file")->valuestring);
    const char *path = fixture_path("STOWKV_FIXTURES", name);
    const char *fault = message_fault(open_and_run(path, &error), &error);
    cJSON_ArrayForEach(mention, cJSON_GetObjectItem(item, "must_mention")) {
        if (fault == NULL && !mentions(error.message, path, mention->valuestring))
            fault = mention->valuestring;
    }
    if (fault != NULL)
        fprintf(stderr, "%s (%s): fault or missing word: %s\n    %s\n", name,
                cJSON_GetObjectItem(item, "why")->valuestring, fault, error.message);
    return fault == NULL;
}

/* Runs the cases of a file of them; returns how many there are. */
static int check_cases(const char *list, bool (*passes)(const cJSON *item)) {
    size_t size;
    char *text = fixture_load(fixture_path("STOWKV_FIXTURES", list), &size);
    cJSON *cases = cJSON_ParseWithLength(text, size);
    const cJSON *item;
    int n_cases = 0, n_failed = 0;
    assert_true(cJSON_IsArray(cases));
    cJSON_ArrayForEach(item, cases) {
        n_cases++;
        n_failed += !passes(item);
    }
    printf("%s: %d files, %d not as they should be\n", list, n_cases, n_failed);
    cJSON_Delete(cases);
    free(text);
    assert_int_equal(n_failed, 0);
    return n_cases;
}

static void test_malformed_files(void **state) {
    (void)state;
    assert_true(check_cases("bad/expected.json", case_passes) > 550);
}

/* One item of noted.json: the file runs, and a note, with a cure in one line, has all the words. */
static bool note_passes(const cJSON *item) {
    char name[256];
    const cJSON *mention;
    Error error = {0};
    Checkpoint checkpoint;
    snprintf(name, sizeof name, "bad/%s", cJSON_GetObjectItem(item, "file")->valuestring);
    const char *path = fixture_path("STOWKV_FIXTURES", name), *fault = NULL;
    if (open_and_run(path, &error) < 0 || checkpoint_open(&checkpoint, path, &error) < 0) {
        fprintf(stderr, "%s: %s\n", name, error.message);
        return false;
    }
    Error note = {.code = -1};
    snprintf(note.message, sizeof note.message, "%s", checkpoint.n_notes == 1 ? checkpoint.notes[0] : "");
    fault = message_fault(-1, &note);
    cJSON_ArrayForEach(mention, cJSON_GetObjectItem(item, "must_mention")) {
        if (fault == NULL && !mentions(note.message, path, mention->valuestring))
            fault = mention->valuestring;
    }
    if (fault != NULL)
        fprintf(stderr, "%s: fault or missing word: %s\n    %s\n", name, fault, note.message);
    checkpoint_close(&checkpoint);
    return fault == NULL;
}

static void test_notes(void **state) {
    (void)state;
    assert_true(check_cases("bad/noted.json", note_passes) > 5);
}

static void check_every_length(const char *fixture, const char *name) {
    size_t size;
    char *data = fixture_load(fixture_path("STOWKV_FIXTURES", fixture), &size);
    const char *path = in_folder(name);
    Error error;
    write_file(path, data, size);
    if (open_and_run(path, &error) < 0)
        fail_msg("%s as a whole: %s", fixture, error.message);
    for (size_t length = size; length-- > 0;) {
        assert_int_equal(truncate(path, (off_t)length), 0);
        const char *fault = message_fault(open_and_run(path, &error), &error);
        if (fault != NULL)
            fail_msg("%s cut to %zu of %zu bytes: %s\n  %s", fixture, length, size, fault, error.message);
    }
    unlink(path);
    free(data);
}

static void test_truncated_gguf(void **state) {
    (void)state;
    check_every_length("bad/truncate_me.gguf", "cut.gguf");
}

static void test_truncated_llama2c(void **state) {
    (void)state;
    check_every_length("bad/truncate_me.bin", "cut.bin");
}

/* Weights that have their configuration beside them. */
static void with_configuration(void (*check)(const char *fixture, const char *name), const char *fixture,
                               const char *name) {
    size_t size;
    char *data = fixture_load(fixture_path("STOWKV_FIXTURES", "bad/whole/config.json"), &size);
    write_file(in_folder("config.json"), data, size);
    check(fixture, name);
    unlink(in_folder("config.json"));
    free(data);
}

static void test_truncated_folders(void **state) {
    (void)state;
    with_configuration(check_every_length, "bad/whole/model.safetensors", "cut.safetensors");
    with_configuration(check_every_length, "bad/whole/model.pth", "cut.pth");
}

/* Marsaglia's xorshift64. */
static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Bytes before the first tensor's data. */
static size_t header_bytes(const char *path) {
    Checkpoint checkpoint;
    Error error = {0};
    assert_int_equal(checkpoint_open(&checkpoint, path, &error), 0);
    size_t first = checkpoint.files[0].size;
    for (size_t i = 0; i < checkpoint.n_tensors; i++) {
        size_t offset = (size_t)(checkpoint.tensors[i].data - checkpoint.files[0].data);
        first = offset < first ? offset : first;
    }
    checkpoint_close(&checkpoint);
    return first;
}

/* Damages 1 to 4 bytes of the first `header`, n_files times. Most files must be refused with a message; some, with a
 * changed name or score, stay usable. */
static void check_flipped_bytes(const char *fixture_name, const char *name, size_t header, size_t n_files) {
    static const uint8_t EXTREMES[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    size_t size, n_refused = 0;
    const char *fixture = fixture_path("STOWKV_FIXTURES", fixture_name);
    uint8_t *data = fixture_load(fixture, &size);
    assert_true(header <= size);
    const char *path = in_folder(name);
    write_file(path, data, size);
    int descriptor = open(path, O_WRONLY);
    assert_true(descriptor >= 0);
    uint64_t seed = 20240229;
    for (size_t i = 0; i < n_files; i++) {
        size_t n_flips = 1 + random_next(&seed) % 4, places[4];
        uint8_t before[4];
        for (size_t j = 0; j < n_flips; j++) {
            uint64_t random = random_next(&seed);
            places[j] = (size_t)(random >> 32) % header;
            before[j] = data[places[j]];
            data[places[j]] = random % 3 == 0   ? EXTREMES[random / 3 % sizeof EXTREMES]
                              : random % 3 == 1 ? (uint8_t)(random / 3)
                                                : (uint8_t)(before[j] ^ 1u << random / 3 % 8);
        }
        assert_int_equal(pwrite(descriptor, data, header, 0), header);
        Error error;
        int status = open_and_run(path, &error);
        const char *fault = status < 0 ? message_fault(status, &error) : NULL;
        if (fault != NULL)
            fail_msg("%s, damage %zu: %s\n  %s", fixture_name, i, fault, error.message);
        n_refused += status < 0;
        for (size_t j = n_flips; j-- > 0;)
            data[places[j]] = before[j];
    }
    printf("%s: %zu damaged headers of %zu bytes, %zu refused\n", fixture_name, n_files, header, n_refused);
    assert_true(n_refused > n_files / 8);
    close(descriptor);
    unlink(path);
    free(data);
}

static void check_flipped_headers(const char *fixture, const char *name) {
    check_flipped_bytes(fixture, name, header_bytes(fixture_path("STOWKV_FIXTURES", fixture)), 20000);
}

/* Numbers too: the directory of a .pth is at its end. */
static void check_flipped_files(const char *fixture, const char *name) {
    size_t size;
    free(fixture_load(fixture_path("STOWKV_FIXTURES", fixture), &size));
    check_flipped_bytes(fixture, name, size, 5000);
}

static void test_flipped_bytes(void **state) {
    (void)state;
    check_flipped_headers("bad/truncate_me.gguf", "flipped.gguf");
    check_flipped_headers("bad/truncate_me.bin", "flipped.bin");
    with_configuration(check_flipped_files, "bad/whole/model.safetensors", "flipped.safetensors");
    with_configuration(check_flipped_files, "bad/whole/model.pth", "flipped.pth");
}

static void test_not_a_file(void **state) {
    (void)state;
    assert_refused(in_folder("missing.gguf"), "No such file");
    assert_refused(folder, "directory");
    assert_refused("https://example.org/model.gguf", "address");
    const char *path = in_folder("empty.gguf");
    write_file(path, "", 0);
    assert_refused(path, "empty");
    unlink(path);
    path = in_folder("fifo.gguf");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, "regular file");
    unlink(path);
    assert_refused("/dev/null", "regular file");
}

/* Root may read everything, so the file is opened as another user. */
static void test_unreadable(void **state) {
    (void)state;
    const char *path = in_folder("unreadable.gguf");
    write_file(path, "GGUF", 4);
    assert_int_equal(chmod(path, 0), 0);
    bool root = geteuid() == 0, readable = root && seteuid(65534) != 0;
    if (!readable)
        assert_refused(path, "Permission denied");
    if (root && !readable)
        assert_int_equal(seteuid(0), 0);
    unlink(path);
    if (readable) {
        fprintf(stderr, "\n*** SKIPPED: a file without permission; root reads everything ***\n\n");
        skip();
    }
}

static void test_tokenizer_of_another_model(void **state) {
    (void)state;
    char tokenizer[4096];
    snprintf(tokenizer, sizeof tokenizer, "%s", fixture_path("STOWKV_DATA", "tok512.model"));
    SessionOptions options = SESSION_DEFAULTS;
    options.checkpoint_path = fixture_path("STOWKV_FIXTURES", "models/f32.gguf");
    options.tokenizer_path = tokenizer;
    Session session;
    Error error = {0};
    const char *fault = message_fault(session_open(&session, &options, &error), &error);
    if (fault != NULL)
        fail_msg("%s\n  %s", fault, error.message);
    assert_true(mentions(error.message, tokenizer, "vocabulary"));
    assert_non_null(strstr(error.message, "512"));
    assert_non_null(strstr(error.message, "--tokenizer_path"));
}

/* What people have under a tokenizer's name. */
static void test_not_a_tokenizer(void **state) {
    (void)state;
    static const struct {
        const char *file, *mention;
    } CASES[] = {
        {"bad/foreign-pointer.gguf", "Git LFS pointer"},
        {"bad/foreign-page.gguf", "web page"},
        {"bad/foreign-tokenizer.json", "no \"model\" in it"},
        {"models/f32.gguf", "model in GGUF"},
        {"bad/foreign-tiktoken", "no token for the character"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Tokenizer *tokenizer;
        Error error = {0};
        const char *path = fixture_path("STOWKV_FIXTURES", CASES[i].file);
        const char *fault = message_fault(tokenizer_open_file(&tokenizer, path, 0, &error), &error);
        if (fault != NULL || !mentions(error.message, path, CASES[i].mention))
            fail_msg("%s: %s\n  %s", CASES[i].file, fault != NULL ? fault : CASES[i].mention, error.message);
    }
}

static void test_no_tokenizer(void **state) {
    (void)state;
    size_t size;
    char *data = fixture_load(fixture_path("STOWKV_FIXTURES", "bad/truncate_me.bin"), &size);
    SessionOptions options = SESSION_DEFAULTS;
    options.checkpoint_path = in_folder("alone.bin");
    write_file(options.checkpoint_path, data, size);
    Session session;
    Error error = {0};
    const char *fault = message_fault(session_open(&session, &options, &error), &error);
    unlink(options.checkpoint_path);
    free(data);
    if (fault != NULL)
        fail_msg("%s\n  %s", fault, error.message);
    assert_non_null(strstr(error.message, "--tokenizer_path"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_files),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_truncated_gguf),
        cmocka_unit_test(test_truncated_llama2c),
        cmocka_unit_test(test_truncated_folders),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_not_a_file),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_tokenizer_of_another_model),
        cmocka_unit_test(test_not_a_tokenizer),
        cmocka_unit_test(test_no_tokenizer),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
