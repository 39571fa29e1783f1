/* See evaluation_fixture.h. */
#include "tests/evaluation_fixture.h"

#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static size_t parse_policies(const RunOptions *options, KvPolicy *policies) {
    size_t n = 0;
    Error error = {0};
    for (; options->policies[n] != NULL; n++) {
        policies[n] = kv_policy_full();
        if (kv_policy_parse(options->policies[n], &policies[n], &error) < 0)
            fail_msg("%s", error.message);
    }
    return n;
}

int test_run_open(TestRun *run, const RunOptions *options, Error *error) {
    static KvPolicy policies[RUN_MAX_POLICIES];
    size_t n_policies = parse_policies(options, policies);
    const char *path = options->model[0] == '/' ? options->model : fixture_path("STOWKV_FIXTURES", options->model);
    int n_threads = options->n_threads > 0 ? options->n_threads : 2;
    Backend *backend = options->backend;
    PplSettings settings = options->settings;
    settings.stride = settings.stride > 0 ? settings.stride : settings.context;
    if (backend == NULL)
        assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), n_threads, error), 0);
    if (model_open(&run->model, path, backend, error) < 0)
        fail_msg("%s", error->message);
    run->e = (Evaluation){.model = &run->model,
                          .tokens = options->tokens,
                          .bos = options->bos > 0 ? options->bos : -1,
                          .n_ctx = settings.context,
                          .n_batch = options->n_batch,
                          .divergence = options->divergence,
                          .attribution = options->attribution,
                          .save_base = options->save_base,
                          .load_base = options->load_base};
    if (ppl_windows(&settings, options->n_tokens, &run->e.windows, error) < 0)
        fail_msg("%s", error->message);
    int status = evaluation_open(&run->e, policies, n_policies, error);
    if (status < 0)
        model_close(&run->model);
    return status;
}

void test_run(TestRun *run, const RunOptions *options) {
    Error error = {0};
    if (test_run_open(run, options, &error) < 0 || evaluation_run(&run->e, &error) < 0)
        fail_msg("%s: %s", options->policies[0], error.message);
}

void test_run_close(TestRun *run) {
    evaluation_close(&run->e);
    model_close(&run->model);
}

const int32_t *random_windows(void) {
    static int32_t tokens[2 * RUN_WINDOW];
    size_t size;
    int32_t *loaded = fixture_load(fixture_path("STOWKV_FIXTURES", "cache/tokens"), &size);
    assert_int_equal(size, sizeof tokens);
    memcpy(tokens, loaded, size);
    free(loaded);
    return tokens;
}

int32_t *wiki_tokens_of_stories(size_t n_tokens) {
    size_t size;
    Tokenizer *tokenizer;
    TokenList list = {0};
    Error error = {0};
    char *text = fixture_load(fixture_path("STOWKV_DATA", "wiki.test.raw"), &size);
    if (tokenizer_open_file(&tokenizer, fixture_path("STOWKV_DATA", "tok512.model"), 0, &error) < 0)
        fail_msg("%s", error.message);
    size_t length = 4 * n_tokens < size ? 4 * n_tokens : size; /* its tokens have fewer than four bytes on average */
    while (length > 0 && (text[length] & 0xC0) == 0x80)
        length--;
    assert_int_equal(tokenizer_encode(tokenizer, (StringView){text, length}, TOKENIZE_ADD_BOS, &list, &error), 0);
    assert_true(list.count >= n_tokens);
    int32_t *tokens = malloc(n_tokens * sizeof *tokens);
    memcpy(tokens, list.ids, n_tokens * sizeof *tokens);
    token_list_free(&list);
    tokenizer_free(tokenizer);
    free(text);
    return tokens;
}
