/* Devices that cannot, or fail, on the simulated GPU (tests/cuda_shim): whichever call of the runtime fails there is an
 * error and no leak; what kernels lack is named; --device auto takes the CPU and says why, or is an error. */
#include "base/simd/detect.h"
#include "checkpoints/open.h"
#include "cpu/backend.h"
#include "cuda/backend.h"
#include "session/devices.h"
#include "session/run_report.h"
#include "tests/cuda_run.h"
#include "tests/cuda_shim/shim.h"
#include "tests/evaluation_fixture.h"
#include "tests/fixture_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* ---- Devices that cannot, or fail */

static void check_refused(const char *expected) {
    Error error = {0};
    Backend *backend;
    assert_int_equal(cuda_backend_open(&backend, SIMD_SCALAR, 1, &error), ERROR_UNSUPPORTED);
    if (strstr(error.message, expected) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, expected);
    assert_non_null(strstr(error.message, "--device cpu"));
    cuda_shim_reset();
}

static void test_devices(void **state) {
    (void)state;
    cuda_shim_set_devices(0);
    check_refused("no NVIDIA GPU");
    cuda_shim_set_versions(12020, 13000);
    check_refused("supports CUDA 12.2, this program needs 13.0");
    cuda_shim_set_architecture(7, 0);
    check_refused("7.0");
}

/* What kernels do not have is named, and --device auto takes the CPU for it. */
static void test_what_kernels_lack(void **state) {
    (void)state;
    Error error = {0};
    Model model;
    Checkpoint checkpoint;
    Backend *backend;
    const char *path = fixture_path("STOWKV_FIXTURES", "models/gemma2_f32.gguf");
    assert_int_equal(model_open(&model, path, open_cuda(), &error), ERROR_UNSUPPORTED);
    if (strstr(error.message, "'gemma2'") == NULL || strstr(error.message, "sliding window") == NULL ||
        strstr(error.message, "take --device cpu") == NULL)
        fail_msg("%s", error.message);
    assert_int_equal(checkpoint_open(&checkpoint, path, &error), 0);
    assert_int_equal(device_open("cuda", &checkpoint.config, &backend, cpu_best_simd_level(), 1, &error),
                     ERROR_UNSUPPORTED);
    assert_int_equal(device_open("auto", &checkpoint.config, &backend, cpu_best_simd_level(), 1, &error), 0);
    assert_string_equal(backend->device, "cpu");
    assert_non_null(strstr(backend->passed_over.message, "sliding window"));
    backend->ops->close(backend);
    checkpoint_close(&checkpoint);
}

/* ---- --device auto */

/* Opens what auto takes; NULL and an error where a device that works has no room. */
static Backend *open_auto(Error *error) {
    Backend *backend = NULL;
    *error = (Error){0};
    if (device_open("auto", NULL, &backend, cpu_best_simd_level(), 1, error) == 0)
        return backend;
    assert_string_not_equal(error->message, "");
    return NULL;
}

/* `reason`: a part of what is told of the GPU that is passed over; NULL: nothing is told. */
static void check_auto(const char *device, const char *reason) {
    Error error;
    Backend *backend = open_auto(&error);
    if (backend == NULL)
        fail_msg("%s", error.message);
    assert_string_equal(backend->device, device);
    cJSON *json = cJSON_CreateObject();
    backend_json(json, backend);
    const cJSON *note = cJSON_GetObjectItem(json, "device_note");
    if (reason == NULL)
        assert_null(note);
    else if (note == NULL || strstr(note->valuestring, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", note != NULL ? note->valuestring : "", reason);
    cJSON_Delete(json);
    backend->ops->close(backend);
    const KvRecordForm *form = strcmp(device, "cuda") == 0 ? cuda_backend_records() : cpu_backend_records();
    long n_launches = cuda_shim_counts().launches;
    assert_ptr_equal(device_records("auto", &error), form);
    assert_int_equal(cuda_shim_counts().launches, n_launches);
    cuda_shim_reset();
}

static void test_auto(void **state) {
    (void)state;
    check_auto("cuda", NULL);
    cuda_shim_set_devices(0);
    check_auto("cpu", NULL);
    cuda_shim_set_versions(0, 13000); /* no driver */
    check_auto("cpu", NULL);
    cuda_shim_set_versions(12020, 13000);
    check_auto("cpu", "supports CUDA 12.2, this program needs 13.0");
    cuda_shim_set_architecture(7, 0);
    check_auto("cpu", "7.0");
}

/* Whichever call of opening fails: the GPU, or the CPU and why, or an error. One that is full is an error. */
static void check_auto_tells(cudaError_t failure) {
    size_t n_passed_over = 0;
    bool failed = true;
    for (long call = 1; failed; call++) {
        Error error;
        cuda_shim_fail_after(call, failure);
        Backend *backend = open_auto(&error);
        failed = cuda_shim_counts().failed;
        if (backend != NULL && strcmp(backend->device, "cpu") == 0) {
            n_passed_over++;
            if (strstr(backend->passed_over.message, "--device cpu") == NULL)
                fail_msg("call %ld failed: \"%s\"", call, backend->passed_over.message);
        }
        if (backend != NULL)
            backend->ops->close(backend);
        assert_int_equal(cuda_shim_counts().n_allocated, 0);
        cuda_shim_reset();
    }
    assert_int_equal(n_passed_over > 0, failure != cudaErrorMemoryAllocation);
}

static void test_auto_tells(void **state) {
    (void)state;
    check_auto_tells(cudaErrorNoKernelImageForDevice);
    check_auto_tells(cudaErrorUnsupportedPtxVersion);
    check_auto_tells(cudaErrorDevicesUnavailable);
    check_auto_tells(cudaErrorLaunchFailure);
    check_auto_tells(cudaErrorMemoryAllocation);
}

/* A model that does not fit is not the CPU's without a word. */
static void test_auto_needs_memory(void **state) {
    (void)state;
    KvPolicy policy = kv_policy_full();
    size_t n_refused = 0;
    int status = ERROR_MEMORY;
    for (size_t size_bytes = 1000; status < 0; size_bytes += size_bytes / 4) {
        Error error;
        ModelRun run = {0};
        cuda_shim_set_memory(size_bytes);
        Backend *backend = open_auto(&error);
        status = backend == NULL
                     ? error.code
                     : model_open(&run.model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), backend, &error);
        bool is_open = status == 0;
        if (is_open)
            status = context_open(&run.context, &run.model, &policy, CUDA_RUN_CTX, 0, &error);
        if (status < 0 && (status != ERROR_MEMORY || strstr(error.message, "--device cpu") == NULL))
            fail_msg("%zu bytes of memory: \"%s\"", size_bytes, error.message);
        n_refused += status < 0;
        if (is_open) {
            assert_string_equal(run.model.backend->device, "cuda");
            model_run_close(&run);
        }
        assert_int_equal(cuda_shim_counts().n_allocated, 0);
        cuda_shim_reset();
    }
    assert_true(n_refused > 4);
}

/* The launch of the probe is one of the first calls; before it, other messages are right. */
static void test_no_kernels(void **state) {
    (void)state;
    size_t n_told = 0;
    for (long call = 1; call < 12; call++) {
        Error error = {0};
        Backend *backend;
        cuda_shim_fail_after(call, cudaErrorNoKernelImageForDevice);
        if (cuda_backend_open(&backend, SIMD_SCALAR, 1, &error) == 0)
            backend->ops->close(backend);
        n_told += strstr(error.message, "-DCMAKE_CUDA_ARCHITECTURES=90") != NULL;
        cuda_shim_reset();
    }
    assert_true(n_told > 0);
}

/* Whichever call fails, while a model opens or runs: an error, no leak. */
static void test_every_call_may_fail(void **state) {
    (void)state;
    const cudaError_t errors[] = {cudaErrorMemoryAllocation, cudaErrorLaunchFailure};
    const char *path = fixture_path("STOWKV_FIXTURES", "models/f32.gguf");
    KvPolicy policy = kv_policy_quantized(4, 32, KV_INT8, KV_INT8);
    for (size_t e = 0; e < 2; e++)
        for (long call = 1;; call += call < 60 ? 1 : 17) {
            Error error = {0};
            Backend *backend;
            ModelRun run = {0};
            cuda_shim_fail_after(call, errors[e]);
            int status = cuda_backend_open(&backend, SIMD_SCALAR, 1, &error);
            if (status == 0)
                status = model_open(&run.model, path, backend, &error);
            bool opened = status == 0;
            if (opened)
                status = context_open(&run.context, &run.model, &policy, CUDA_RUN_CTX, 0, &error);
            if (status == 0)
                status = forward(&run.context, random_windows(), 20, LOGITS_LAST, &error);
            bool failed = cuda_shim_counts().failed;
            if (opened)
                model_run_close(&run);
            assert_int_equal(cuda_shim_counts().n_allocated, 0);
            cuda_shim_reset();
            if (!failed)
                break;
            if (status == 0 || error.message[0] == '\0')
                fail_msg("call %ld failed, and nobody said so", call);
        }
}

static void test_copies_may_fail(void **state) {
    (void)state;
    Backend *backend = open_cuda();
    CopyBandwidth bandwidth;
    cuda_shim_set_memory(41 << 20); /* of which the backend has some bytes */
    size_t n_allocated = cuda_shim_counts().n_allocated;
    for (long call = 1;; call++) {
        Error error = {0};
        cuda_shim_fail_after(call, cudaErrorMemoryAllocation);
        int status = backend->ops->measure_copies(backend, &bandwidth, &error);
        bool failed = cuda_shim_counts().failed;
        cuda_shim_fail_after(0, cudaSuccess);
        assert_int_equal(cuda_shim_counts().n_allocated, n_allocated);
        if (!failed)
            break;
        if (status == 0 && !(bandwidth.bytes_per_second > 0)) /* calls that give something back may fail unseen */
            fail_msg("call %ld failed, and nobody said so", call);
    }
    assert_int_equal(bandwidth.buffer_bytes, 10 << 20);
    backend->ops->close(backend);
    cuda_shim_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_kernels_lack),
        cmocka_unit_test(test_copies_may_fail),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_no_kernels),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_auto_tells),
        cmocka_unit_test(test_auto_needs_memory),
        cmocka_unit_test(test_every_call_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
