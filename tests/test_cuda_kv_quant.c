/* Per-channel INT8 on a device, its kernels run on the host (tests/cuda_shim): every variant has the scales, codes and
 * decoded numbers of the float64 reference, whatever the shape, the schedule, and how a fused one cuts its matrix; and
 * the device that kv_quant_bench measures leaves nothing allocated, whatever fails. */
#include "base/half.h"
#include "channel_int8/reference.h"
#include "cuda/channel_int8.h"
#include "cuda/channel_steps.h"
#include "tests/channel_cases.h"
#include "tests/cuda_fixture.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Kernels {
    const char *name;
    CudaChannelLaunch *scales; /* NULL: codes make them */
    CudaChannelLaunch *codes, *decode;
} Kernels;

static const Kernels KERNELS[] = {
    {"naive", cuda_channel_scales_naive, cuda_channel_codes_naive, cuda_channel_decode_naive},
    {"tiled", cuda_channel_scales, cuda_channel_codes_tiled, cuda_channel_decode_tiled},
    {"coarsened", cuda_channel_scales, cuda_channel_codes_coarsened, cuda_channel_decode_coarsened},
    {"vectorized", cuda_channel_scales, cuda_channel_codes_vectorized, cuda_channel_decode_vectorized},
    {"fused", NULL, cuda_channel_fused, cuda_channel_decode_vectorized},
};
enum { N_KERNELS = sizeof KERNELS / sizeof *KERNELS };

/* ---- Kernels */

typedef struct Device {
    size_t cache_bytes, n_multiprocessors;
} Device;

static uint16_t *halves_of(const float *x, size_t n) {
    uint16_t *halves = malloc(n * sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = half_from_float(x[i]);
    return halves;
}

/* All in pieces of their exact sizes, which AddressSanitizer watches. */
static void run_kernels(const ChannelExpected *e, const Kernels *k, Device device) {
    size_t n = e->n_tokens * e->n_channels, key_bytes = e->half_keys ? 2 : 4;
    void *keys = e->half_keys ? (void *)halves_of(e->keys, n) : (void *)e->keys;
    CudaChannelJob job = {.half_keys = e->half_keys,
                          .n_tokens = e->n_tokens,
                          .n_channels = e->n_channels,
                          .keys = to_device(keys, n * key_bytes),
                          .scales = to_device(NULL, e->n_channels * sizeof(float)),
                          .codes = (int8_t *)to_device(NULL, n),
                          .decoded = to_device(NULL, n * key_bytes),
                          .work = to_device(NULL, cuda_channel_work_bytes(e->n_channels)),
                          .cache_bytes = device.cache_bytes,
                          .n_multiprocessors = device.n_multiprocessors};
    float *scales = malloc(e->n_channels * sizeof *scales), *decoded = malloc(n * sizeof *decoded);
    uint16_t *decoded_halves = malloc(n * sizeof *decoded_halves);
    int8_t *codes = malloc(n);
    if (k->scales != NULL)
        k->scales(&job, stream);
    k->codes(&job, stream);
    k->decode(&job, stream);
    from_device(scales, job.scales, e->n_channels * sizeof *scales);
    from_device(codes, (const float *)(void *)job.codes, n);
    from_device(e->half_keys ? (void *)decoded_halves : (void *)decoded, job.decoded, n * key_bytes);
    for (size_t i = 0; e->half_keys && i < n; i++)
        decoded[i] = half_to_float(decoded_halves[i]);
    channel_check(e, k->name, scales, codes, decoded);
    const void *memory[] = {job.keys, job.scales, job.codes, job.decoded, job.work};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        cudaFree((void *)memory[i]);
    if (e->half_keys)
        free(keys);
    free(scales);
    free(codes);
    free(decoded);
    free(decoded_halves);
}

/* Of all kernels, FP16 and F32. */
static void check_all(const float *keys, size_t n_tokens, size_t n_channels, Device device) {
    for (int half_keys = 0; half_keys < 2; half_keys++) {
        ChannelExpected e = channel_expect(keys, n_tokens, n_channels, half_keys);
        for (size_t k = 0; k < N_KERNELS; k++)
            run_kernels(&e, &KERNELS[k], device);
        channel_expected_free(&e);
    }
}

/* Channels of any size, many numbers half way between two codes, or a float beside that. */
static float *draw_keys(size_t n_tokens, size_t n_channels) {
    float *keys = malloc(n_tokens * n_channels * sizeof *keys);
    for (size_t d = 0; d < n_channels; d++) {
        float largest = d % 3 == 0 ? 127 * ldexpf(1, (int)(random_bits() % 8) - 4) : 3 + 40 * fabsf(random_float());
        float scale = largest / 127;
        for (size_t t = 0; t < n_tokens; t++) {
            float x = (float)((int)(random_bits() % 253) - 126) * scale, tie = x + copysignf(scale / 2, x);
            float kinds[] = {random_float() * largest, tie, nextafterf(tie, 0), nextafterf(tie, 2 * tie)};
            keys[t * n_channels + d] = kinds[random_bits() % 4];
        }
        keys[random_bits() % n_tokens * n_channels + d] = d % 2 == 0 ? largest : -largest;
    }
    return keys;
}

static const Device H100 = {(size_t)50 << 20, 132};

static void test_shapes(void **state) {
    (void)state;
    static const size_t SHAPES[][2] = {{1, 1},    {3, 5},     {1, 256}, {2, 264},   {37, 8},   {65, 4},
                                       {257, 12}, {1025, 63}, {300, 2}, {130, 129}, {1025, 64}};
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++) {
        float *keys = draw_keys(SHAPES[s][0], SHAPES[s][1]);
        check_all(keys, SHAPES[s][0], SHAPES[s][1], H100);
        free(keys);
    }
}

static void test_schedules(void **state) {
    (void)state;
    for (unsigned seed = 1; seed < 5; seed++) {
        float *keys = draw_keys(150, 70);
        cuda_shim_set_seed(seed);
        check_all(keys, 150, 70, H100);
        cuda_shim_set_seed(0);
        free(keys);
    }
}

/* A fused kernel's strips: one, several, and such as do not fit; with more blocks than there are units, and fewer. */
static void test_strips(void **state) {
    (void)state;
    static const size_t CACHES[] = {0, (size_t)400 << 10, (size_t)1 << 20, (size_t)3 << 20};
    for (size_t c = 0; c < 4; c++)
        for (size_t n = 1; n <= 9; n += 8)
            for (int half_keys = 0; half_keys < 2; half_keys++) {
                float *keys = draw_keys(1100, half_keys ? 136 : 75);
                ChannelExpected e = channel_expect(keys, 1100, half_keys ? 136 : 75, half_keys);
                cuda_shim_set_seed((unsigned)(c + n));
                run_kernels(&e, &KERNELS[N_KERNELS - 1], (Device){CACHES[c], n});
                cuda_shim_set_seed(0);
                channel_expected_free(&e);
                free(keys);
            }
}

/* ---- Channels with a meaning of their own */

static const float PEAKS[] = {
    0,
    -0.0f,
    NAN,
    -NAN,
    INFINITY,
    -INFINITY,
    FLT_MAX,
    -FLT_MAX,
    FLT_MIN,
    FLT_TRUE_MIN,
    0x1p-142f,
    1e-44f,
    0x1.8p-143f,
    127 * 0x1p-149f,
    200 * 0x1p-149f,
    1e-39f,
    1e-38f,
    0x1p-61f * 127,
    0x1p-60f * 127,
    1e-36f,
    1e-30f,
    1e30f,
    65504,
    6e-8f,
    1,
};
enum { N_PEAKS = sizeof PEAKS / sizeof *PEAKS, TOKENS = 97 };

/* A channel for each peak, with smaller numbers around it, halves between codes among them; in none but the first
 * channel is there a zero only. */
static void test_special_channels(void **state) {
    (void)state;
    float keys[TOKENS * N_PEAKS];
    for (size_t d = 0; d < N_PEAKS; d++) {
        float size = isfinite(PEAKS[d]) ? PEAKS[d] : 5;
        for (size_t t = 0; t < TOKENS; t++)
            keys[t * N_PEAKS + d] = t % 2 == 0 ? size * random_float() : size / 127 * ((float)(t % 126) + 0.5f);
        keys[(d * 31 + 5) % TOKENS * N_PEAKS + d] = PEAKS[d];
    }
    check_all(keys, TOKENS, N_PEAKS, H100);
}

/* What people can check by hand: scales of 1 and 2, ties to even, the error of half a scale. */
static void test_known_answers(void **state) {
    (void)state;
    const float keys[] = {127, -254, 0.5f, 1, 1.5f, 3, -2.5f, -5, -126.5f, 253, 2.5000002f, 4.9999995f};
    const int8_t codes[] = {127, -127, 0, 0, 2, 2, -2, -2, -126, 126, 3, 2};
    ChannelExpected e = channel_expect(keys, 6, 2, false);
    assert_float_equal(e.scales[0], 1, 0);
    assert_float_equal(e.scales[1], 2, 0);
    assert_memory_equal(e.codes, codes, sizeof codes);
    for (size_t i = 0; i < sizeof codes; i++)
        assert_true(fabsf(e.decoded[i] - keys[i]) <= e.scales[i % 2] / 2);
    channel_expected_free(&e);
    check_all(keys, 6, 2, H100);
}

/* ---- The device that is measured */

static void read_all(ChannelDevice *device, const ChannelVariant *variant, const float *keys, size_t n_tokens,
                     size_t n_channels) {
    Error error = {0};
    ChannelExpected e = channel_expect(keys, n_tokens, n_channels, variant->half_keys);
    size_t n = n_tokens * n_channels;
    float *scales = malloc(n_channels * sizeof *scales), *decoded = malloc(n * sizeof *decoded);
    int8_t *codes = malloc(n);
    size_t middle = n_tokens / 2;
    if (device->ops->read_scales(device, scales, &error) < 0 ||
        device->ops->read_codes(device, 0, middle, codes, &error) < 0 ||
        device->ops->read_codes(device, middle, n_tokens - middle, codes + middle * n_channels, &error) < 0 ||
        device->ops->read_decoded(device, 0, middle, decoded, &error) < 0 ||
        device->ops->read_decoded(device, middle, n_tokens - middle, decoded + middle * n_channels, &error) < 0)
        fail_msg("%s", error.message);
    channel_check(&e, variant->name, scales, codes, decoded);
    channel_expected_free(&e);
    free(scales);
    free(codes);
    free(decoded);
}

static int run_all(ChannelDevice *device, const ChannelVariant *variant, size_t n_times, Error *error) {
    double ms;
    for (int step = 0; step < CHANNEL_STEP_COUNT; step++) {
        if (device->ops->run(device, (ChannelStep)step, n_times, &ms, error) < 0)
            return error->code;
        assert_int_equal(ms > 0, variant->bytes[step] > 0);
    }
    return 0;
}

/* Each variant, on copies of what is in no cache, more often than there are copies; and on what is in the cache. */
static void test_device(void **state) {
    (void)state;
    static const size_t SHAPES[][2] = {{1024, 64}, {3, 5}};
    Error error = {0};
    ChannelDevice *device;
    if (cuda_channel_open(&device, &error) < 0)
        fail_msg("%s", error.message);
    for (size_t s = 0; s < 2; s++) {
        float *keys = draw_keys(SHAPES[s][0], SHAPES[s][1]);
        ChannelMatrix matrix = {keys, SHAPES[s][0], SHAPES[s][1]};
        for (size_t v = 0; v < device->n_variants; v++) {
            const ChannelVariant *variant = &device->variants[v];
            if (device->ops->load(device, variant, &matrix, &error) < 0 || run_all(device, variant, 2, &error) < 0)
                fail_msg("%s", error.message);
            assert_int_equal(device->from_cache, s == 1);
            read_all(device, variant, keys, SHAPES[s][0], SHAPES[s][1]);
            assert_true(device->transfers.allocate_ms > 0 && device->transfers.upload_ms > 0 &&
                        device->transfers.download_ms > 0);
            device->ops->unload(device);
            device->ops->unload(device);
        }
        free(keys);
    }
    device->ops->close(device);
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
}

/* The matrices that the host's variants are tried on. */
static void test_cases_of_the_host(void **state) {
    (void)state;
    Error error = {0};
    ChannelDevice *device;
    if (cuda_channel_open(&device, &error) < 0)
        fail_msg("%s", error.message);
    check_channel_variants(device);
    device->ops->close(device);
}

/* Copies are run in turn, and the one that was coded last is read, decoded or not: after any number of runs. */
static void test_copies_in_turn(void **state) {
    (void)state;
    Error error = {0};
    ChannelDevice *device;
    float *keys = draw_keys(9000, 64);
    ChannelMatrix matrix = {keys, 9000, 64};
    assert_int_equal(cuda_channel_open(&device, &error), 0);
    const ChannelVariant *variant = &device->variants[3];
    assert_string_equal(variant->name, "cuda_vectorized");
    for (size_t n_times = 1; n_times <= 7; n_times += 3) {
        assert_int_equal(device->ops->load(device, variant, &matrix, &error), 0);
        size_t bytes = cuda_shim_counts().device_bytes, one, available;
        device->ops->memory(device, variant, 9000, 64, &one, &available);
        assert_int_equal(device->from_cache, 0);
        assert_true(bytes / one >= 3 && bytes / one < 7);
        assert_int_equal(run_all(device, variant, n_times, &error), 0);
        read_all(device, variant, keys, 9000, 64);
        double ms;
        assert_int_equal(device->ops->run(device, CHANNEL_CODES, 1, &ms, &error), 0);
        read_all(device, variant, keys, 9000, 64);
    }
    device->ops->close(device);
    free(keys);
}

/* Less memory: fewer copies, which is said; and none at all. */
static void test_memory(void **state) {
    (void)state;
    Error error = {0};
    ChannelDevice *device;
    float *keys = draw_keys(1024, 64);
    ChannelMatrix matrix = {keys, 1024, 64};
    size_t needed, available;
    assert_int_equal(cuda_channel_open(&device, &error), 0);
    const ChannelVariant *variant = &device->variants[0];
    device->ops->memory(device, variant, 1024, 64, &needed, &available);
    assert_int_equal(available, (size_t)1 << 40);
    cuda_shim_set_memory(needed);
    assert_int_equal(device->ops->load(device, variant, &matrix, &error), 0);
    assert_int_equal(cuda_shim_counts().device_bytes, needed);
    assert_true(device->from_cache);
    device->ops->unload(device);
    cuda_shim_set_memory(needed - 1);
    assert_int_equal(device->ops->load(device, variant, &matrix, &error), ERROR_MEMORY);
    assert_non_null(strstr(error.message, "1024x64 needs "));
    device->ops->memory(device, variant, SIZE_MAX / 8, 64, &needed, &available);
    assert_true(needed == SIZE_MAX);
    matrix.n_tokens = SIZE_MAX / 8;
    assert_int_equal(device->ops->load(device, variant, &matrix, &error), ERROR_MEMORY);
    device->ops->close(device);
    cuda_shim_reset();
    free(keys);
}

static void test_no_gpu(void **state) {
    (void)state;
    Error error = {0};
    ChannelDevice *device;
    cuda_shim_set_devices(0);
    assert_int_equal(cuda_channel_open(&device, &error), ERROR_UNSUPPORTED);
    assert_null(device);
    assert_non_null(strstr(error.message, "there is no NVIDIA GPU"));
    cuda_shim_reset();
}

/* Opens, measures a variant, and closes. */
static int measure(size_t v, const ChannelMatrix *matrix, Error *error) {
    ChannelDevice *device;
    float *results = malloc(matrix->n_tokens * matrix->n_channels * sizeof *results);
    if (cuda_channel_open(&device, error) == 0) {
        const ChannelVariant *variant = &device->variants[v];
        if (device->ops->load(device, variant, matrix, error) == 0 && run_all(device, variant, 1, error) == 0 &&
            device->ops->read_scales(device, results, error) == 0 &&
            device->ops->read_codes(device, 0, matrix->n_tokens, (int8_t *)results, error) == 0)
            device->ops->read_decoded(device, 0, matrix->n_tokens, results, error);
        device->ops->close(device);
    }
    free(results);
    return error->code;
}

/* Whatever call fails, there is an error, and no leak. */
static void test_failures(void **state) {
    (void)state;
    float *keys = draw_keys(3, 5);
    ChannelMatrix matrix = {keys, 3, 5};
    cuda_shim_set_memory(8 << 20); /* for few copies */
    for (size_t v = 0; v < 8; v += v == 0 ? 4 : 1) {
        Error error = {0};
        long before = cuda_shim_counts().calls;
        assert_int_equal(measure(v, &matrix, &error), 0);
        long n_calls = cuda_shim_counts().calls - before;
        for (long n = 1; n <= n_calls; n += n < 40 || n > n_calls - 60 ? 1 : 97) {
            error = (Error){0};
            cuda_shim_fail_after(n, cudaErrorLaunchFailure);
            int status = measure(v, &matrix, &error);
            assert_int_equal(cuda_shim_counts().n_allocated, 0);
            if (status == 0 && n < n_calls - 6)
                fail_msg("variant %zu: call %ld of %ld fails, and there is no error", v, n, n_calls);
            cuda_shim_reset();
            cuda_shim_set_memory(8 << 20);
        }
    }
    cuda_shim_reset();
    free(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_strips),
        cmocka_unit_test(test_special_channels),
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_cases_of_the_host),
        cmocka_unit_test(test_copies_in_turn),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
