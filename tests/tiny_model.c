/* See tiny_model.h. */
#include "tests/tiny_model.h"

#include "base/random.h"
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

Model tiny_model;
int32_t tiny_tokens[TINY_TOKENS];

int tiny_model_open(void **state) {
    (void)state;
    Error error = {0};
    Backend *backend;
    uint64_t random = 1;
    for (size_t i = 0; i < TINY_TOKENS; i++)
        tiny_tokens[i] = (int32_t)random_below(&random, TINY_VOCAB);
    if (cpu_backend_open(&backend, cpu_best_simd_level(), 2, &error) < 0 ||
        model_open(&tiny_model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), backend, &error) < 0)
        fail_msg("%s", error.message);
    return 0;
}

int tiny_model_close(void **state) {
    (void)state;
    model_close(&tiny_model);
    return 0;
}

KvPolicy policy_of(const char *text) {
    KvPolicy policy = kv_policy_full();
    Error error = {0};
    if (kv_policy_parse(text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    return policy;
}

void tiny_model_context(Context *context, const char *policy, size_t n_ctx, size_t n_batch) {
    KvPolicy parsed = policy_of(policy);
    Error error = {0};
    if (context_open(context, &tiny_model, &parsed, n_ctx, n_batch, &error) < 0)
        fail_msg("%s: %s", policy, error.message);
}
