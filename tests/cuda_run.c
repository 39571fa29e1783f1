/* See cuda_run.h. */
#include "tests/cuda_run.h"

#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "cuda/backend.h"
#include "kvcache/policy_text.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

Backend *open_cuda(void) {
    Error error = {0};
    Backend *backend;
    if (cuda_backend_open(&backend, cpu_best_simd_level(), 1, &error) < 0)
        fail_msg("%s", error.message);
    return backend;
}

Backend *open_cpu(void) {
    Error error = {0};
    Backend *backend;
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    return backend;
}

void cuda_run_open(CudaRun *run, Backend *backend, const char *model, const char *policy_text, size_t n_batch) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    policy.group = 32;
    policy.rounding = KV_ROUND_NEAREST; /* as the GPU's encoders do */
    if (kv_policy_parse(policy_text, &policy, &error) < 0 ||
        model_open(&run->model, fixture_path("STOWKV_FIXTURES", model), backend, &error) < 0 ||
        context_open(&run->context, &run->model, &policy, CUDA_RUN_CTX, n_batch, &error) < 0)
        fail_msg("%s: %s", policy_text, error.message);
}

void cuda_run_close(CudaRun *run) {
    context_close(&run->context);
    model_close(&run->model);
}

void cuda_run_step(CudaRun *run, const int32_t *tokens, size_t n) {
    Error error = {0};
    if (forward(&run->context, tokens, n, LOGITS_LAST, &error) < 0)
        fail_msg("%s", error.message);
}
