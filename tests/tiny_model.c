/* See tiny_model.h. */
#include "tests/tiny_model.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

Model tiny_model;
int32_t tiny_tokens[TINY_TOKENS];

int tiny_model_open(void **state) {
    (void)state;
    uint64_t random = 1;
    for (size_t i = 0; i < TINY_TOKENS; i++)
        tiny_tokens[i] = (int32_t)random_below(&random, TINY_VOCAB);
    fixture_model_open(&tiny_model, "models/f32.gguf", open_cpu(2));
    return 0;
}

int tiny_model_close(void **state) {
    (void)state;
    model_close(&tiny_model);
    return 0;
}

void tiny_model_context(Context *context, const char *policy, size_t n_ctx, size_t n_batch) {
    KvPolicy parsed = policy_of(policy);
    Error error = {0};
    if (context_open(context, &tiny_model, &parsed, n_ctx, n_batch, &error) < 0)
        fail_msg("%s: %s", policy, error.message);
}
