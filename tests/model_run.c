/* See model_run.h. */
#include "tests/model_run.h"

#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

Backend *open_cpu(int n_threads) {
    Error error = {0};
    Backend *backend;
    if (cpu_backend_open(&backend, cpu_best_simd_level(), n_threads, &error) < 0)
        fail_msg("%s", error.message);
    return backend;
}

KvPolicy policy_of(const char *text) {
    KvPolicy policy = kv_policy_full();
    Error error = {0};
    if (kv_policy_parse(text, &policy, &error) < 0)
        fail_msg("%s", error.message);
    return policy;
}

void fixture_model_open(Model *model, const char *name, Backend *backend) {
    Error error = {0};
    if (model_open(model, fixture_path("STOWKV_FIXTURES", name), backend, &error) < 0)
        fail_msg("%s", error.message);
}

void model_run_open(ModelRun *run, Backend *backend, const char *model, const KvPolicy *policy, size_t n_ctx,
                    size_t n_batch) {
    Error error = {0};
    fixture_model_open(&run->model, model, backend);
    if (context_open(&run->context, &run->model, policy, n_ctx, n_batch, &error) < 0)
        fail_msg("%s", error.message);
}

void model_run_close(ModelRun *run) {
    context_close(&run->context);
    model_close(&run->model);
}

void model_run_step(ModelRun *run, const int32_t *tokens, size_t n) {
    Error error = {0};
    if (forward(&run->context, tokens, n, LOGITS_LAST, &error) < 0)
        fail_msg("%s", error.message);
}

int32_t most_likely(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}
