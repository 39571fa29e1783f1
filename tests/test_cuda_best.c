/* Greedy generation on a device, its kernels run on the host (tests/cuda_shim): the token that is found there is the
 * one that the sampler finds in the logits, also where some are equal; logits stay there, unless somebody asks for
 * them; and those that are not finite are an error. */
#include "cuda/best.h"
#include "session/generation.h"
#include "tests/cuda_fixture.h"
#include "tests/cuda_run.h"
#include "tests/fixture_files.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROMPT = 37, DECODED = 40 };

/* ---- The kernel */

/* On a device whose memory for it holds what would be taken for better than all. */
static int32_t found(const float *logits, size_t n) {
    CudaBest best = ~0ull - 1;
    float *device = to_device(logits, n * sizeof *logits), *at = to_device(&best, sizeof best);
    cuda_find_best(device, n, (CudaBest *)(void *)at, stream);
    from_device(&best, at, sizeof best);
    cudaFree(device);
    cudaFree(at);
    return cuda_best_token(best);
}

static void check(const float *logits, size_t n, int32_t expected) {
    for (unsigned seed = 0; seed < 3; seed++) {
        cuda_shim_set_seed(seed);
        int32_t token = found(logits, n);
        if (token != expected)
            fail_msg("token %d of %zu (%g) is found, not %d (%g)", token, n, token < 0 ? NAN : (double)logits[token],
                     expected, expected < 0 ? NAN : (double)logits[expected]);
    }
    cuda_shim_set_seed(0);
}

/* Of any sign and size, and of a few values only: then many are equally large. */
static void test_finds_the_largest(void **state) {
    (void)state;
    static const size_t SIZES[] = {1, 2, 31, 33, 256, 257, 1023, 1025, 4099};
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int n_values = 1; n_values <= 5; n_values++) {
            float logits[4099];
            for (size_t i = 0; i < SIZES[s]; i++)
                logits[i] = n_values == 5 ? random_float() * 20 - 21 : (float)(random_bits() % (unsigned)n_values) - 2;
            check(logits, SIZES[s], most_likely(logits, SIZES[s]));
        }
}

/* Whichever warp has it. */
static void test_anywhere(void **state) {
    (void)state;
    float logits[1100];
    for (size_t i = 0; i < 1100; i++)
        logits[i] = random_float();
    for (size_t at = 5; at < 1100; at += 32) {
        float before = logits[at];
        logits[at] = 2;
        check(logits, 1100, (int32_t)at);
        logits[at] = before;
    }
}

static void test_equals(void **state) {
    (void)state;
    check((const float[]){-1, -0.0f, 0.0f}, 3, 1);
    check((const float[]){-1, 0.0f, -0.0f}, 3, 1);
    check((const float[]){-FLT_MAX, -FLT_MAX}, 2, 0);
    check((const float[]){-FLT_TRUE_MIN, FLT_TRUE_MIN, 0}, 3, 1);
    check((const float[]){-2, -FLT_MIN, -FLT_TRUE_MIN, -1}, 4, 2);
    check((const float[]){FLT_MAX, 3, FLT_MAX}, 3, 0);
}

static void test_not_finite(void **state) {
    (void)state;
    const float values[] = {NAN, -NAN, INFINITY, -INFINITY};
    const size_t places[] = {0, 700, 1299};
    for (size_t v = 0; v < 4; v++)
        for (size_t p = 0; p < 3; p++) {
            float logits[1300];
            for (size_t i = 0; i < 1300; i++)
                logits[i] = random_float();
            logits[places[p]] = values[v];
            check(logits, 1300, -1);
        }
}

/* ---- The forward pass */

static int32_t prompt_token(const ModelRun *run, size_t position) {
    return (int32_t)((7 * position * position + 13 * position + 11) % run->model.checkpoint.config.n_vocab);
}

static void step(ModelRun *run, const int32_t *tokens, size_t n, LogitsWanted wanted) {
    Error error = {0};
    if (forward(&run->context, tokens, n, wanted, &error) < 0)
        fail_msg("%s", error.message);
}

/* Two runs, of which one asks for logits; the other does too now and then, and where it does not none come. Recorded, a
 * step is a launch, a wait for the token, and little else. */
static void check_steps(const char *policy) {
    ModelRun best, logits;
    int32_t tokens[PROMPT], token;
    cuda_run_open(&best, open_cuda(), "models/f32.gguf", policy, 0);
    cuda_run_open(&logits, open_cuda(), "models/f32.gguf", policy, 0);
    size_t n_vocab = best.model.checkpoint.config.n_vocab, bytes = n_vocab * sizeof(float);
    for (size_t t = 0; t < PROMPT; t++)
        tokens[t] = prompt_token(&best, t);
    step(&best, tokens, PROMPT, LOGITS_BEST);
    step(&logits, tokens, PROMPT, LOGITS_LAST);
    float *untouched = memset(malloc(bytes), 0x5a, bytes);
    for (size_t t = 0; t < DECODED; t++) {
        LogitsWanted wanted = t % 7 == 5 ? LOGITS_LAST : LOGITS_BEST;
        token = most_likely(logits.context.logits, n_vocab);
        assert_int_equal(logits.context.best, -1);
        if (best.context.best >= 0)
            assert_int_equal(best.context.best, token);
        else
            assert_int_equal(most_likely(best.context.logits, n_vocab), token);
        memset(best.context.logits, 0x5a, bytes);
        long n_calls = cuda_shim_counts().calls - cuda_shim_counts().launches;
        step(&best, &token, 1, wanted);
        n_calls = cuda_shim_counts().calls - cuda_shim_counts().launches - n_calls;
        assert_int_equal(best.context.best >= 0, wanted == LOGITS_BEST);
        assert_int_equal(memcmp(best.context.logits, untouched, bytes) == 0, wanted == LOGITS_BEST);
        if (t > 1 && wanted == LOGITS_BEST && n_calls > 9)
            fail_msg("step %zu makes %ld calls of the runtime", t, n_calls);
        step(&logits, &token, 1, LOGITS_LAST);
    }
    free(untouched);
    model_run_close(&best);
    model_run_close(&logits);
}

static void test_steps(void **state) {
    (void)state;
    check_steps("f16:*");
    check_steps("sink=4,f16:8,int8:*");
}

/* The message is that of whoever reads logits. */
static void test_nan_weight(void **state) {
    (void)state;
    char messages[2][sizeof((Error *)0)->message];
    for (int i = 0; i < 2; i++) {
        ModelRun run;
        Error error = {0};
        cuda_run_open(&run, open_cuda(), "bad/nan_weight.gguf", "f16:*", 0);
        int32_t token = 1;
        assert_int_equal(forward(&run.context, &token, 1, i == 0 ? LOGITS_LAST : LOGITS_BEST, &error), ERROR_FORMAT);
        memcpy(messages[i], error.message, sizeof error.message);
        model_run_close(&run);
    }
    assert_non_null(strstr(messages[0], "blk.1.ffn_up"));
    assert_string_equal(messages[1], messages[0]);
}

/* ---- Generation */

typedef struct Written {
    int32_t ids[DECODED];
    size_t n;
    bool by_device; /* the last token was found there */
} Written;

static void generate(const char *device, double temperature, Written *out) {
    Error error = {0};
    Session session;
    Sampler sampler;
    KvPolicy policy = kv_policy_quantized(4, 32, KV_INT8, KV_INT8);
    SessionOptions options = SESSION_DEFAULTS;
    options.checkpoint_path = fixture_path("STOWKV_FIXTURES", "models/f32.gguf");
    options.device = device;
    options.threads = 1;
    const SamplerOptions sampling = {.temperature = temperature, .top_p = 1, .seed = 1};
    const StringList none = {0};
    const GenerationOptions limits = {DECODED, true, &none};
    int32_t prompt[PROMPT];
    Generation run = {.session = &session, .sampler = &sampler};
    if (session_open(&session, &options, &error) < 0 || session_set_policy(&session, &options, &policy, &error) < 0 ||
        sampler_open(&sampler, &sampling, session.model.checkpoint.config.n_vocab, SIMD_SCALAR, &error) < 0)
        fail_msg("%s", error.message);
    for (size_t t = 0; t < PROMPT; t++)
        prompt[t] = (int32_t)(3 + 5 * t % (session.model.checkpoint.config.n_vocab - 3));
    if (generation_read(&run, prompt, PROMPT, &error) < 0 || generation_continue(&run, &limits, &error) < 0)
        fail_msg("%s", error.message);
    out->n = run.generated.count;
    memcpy(out->ids, run.generated.ids, out->n * sizeof *out->ids);
    out->by_device = session.context.best >= 0;
    generation_free(&run);
    sampler_close(&sampler);
    session_close(&session);
}

/* Greedily the CPU's text; where the sampler draws it gets logits. */
static void test_generation(void **state) {
    (void)state;
    Written cpu, cuda;
    cuda_shim_set_blas(false);
    generate("cpu", 0, &cpu);
    generate("cuda", 0, &cuda);
    assert_int_equal(cpu.n, DECODED);
    assert_int_equal(cuda.n, cpu.n);
    assert_memory_equal(cuda.ids, cpu.ids, cpu.n * sizeof *cpu.ids);
    assert_true(cuda.by_device && !cpu.by_device);
    generate("cuda", 1, &cuda);
    assert_true(!cuda.by_device);
    cuda_shim_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_the_largest), cmocka_unit_test(test_anywhere), cmocka_unit_test(test_equals),
        cmocka_unit_test(test_not_finite),        cmocka_unit_test(test_steps),    cmocka_unit_test(test_nan_weight),
        cmocka_unit_test(test_generation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
