/* See cuda_run.h. */
#include "tests/cuda_run.h"

#include "base/simd/detect.h"
#include "cuda/backend.h"

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

void cuda_run_open(ModelRun *run, Backend *backend, const char *model, const char *policy, size_t n_batch) {
    KvPolicy parsed = policy_of(policy);
    parsed.group = 32;
    parsed.rounding = KV_ROUND_NEAREST;
    model_run_open(run, backend, model, &parsed, CUDA_RUN_CTX, n_batch);
}
