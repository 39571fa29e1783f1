/* The CUDA backend from end to end, its kernels run on the host (tests/cuda_shim): logits of every tiny model against
 * the float64 forward pass; the text that the CPU's backend writes, in all modes; perplexity, divergence and
 * attribution as on the CPU; the bytes that attention read. And what a device may do wrong. */
#include "base/simd/detect.h"
#include "checkpoints/open.h"
#include "cpu/backend.h"
#include "cuda/backend.h"
#include "eval/bench/report.h"
#include "eval/profile/timed_backend.h"
#include "eval/proof.h"
#include "kvcache/policy_check.h"
#include "kvcache/policy_text.h"
#include "kvcache/snapshot.h"
#include "session/devices.h"
#include "session/run_report.h"
#include "tests/cuda_shim/shim.h"
#include "tests/evaluation_fixture.h"
#include "tests/fixture_files.h"
#include "tests/model_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PROMPT_BEGIN = 40, PROMPT = 60, DECODED = 40, FEW = 10, N_CTX = 160 };

static Backend *open_cuda(void) {
    Error error = {0};
    Backend *backend;
    if (cuda_backend_open(&backend, cpu_best_simd_level(), 1, &error) < 0)
        fail_msg("%s", error.message);
    return backend;
}

static Backend *open_cpu(void) {
    Error error = {0};
    Backend *backend;
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    return backend;
}

/* ---- Every model */

/* With products in F32, and with cuBLAS. */
static void check_model(ModelCase *c) {
    static const ModelRounding ROUNDINGS[] = {ROUNDS_ATTENTION_TO_HALVES, ROUNDS_TO_HALVES};
    double rms[2];
    for (int with_blas = 0; with_blas < 2; with_blas++) {
        size_t n_vocab;
        cuda_shim_set_blas(with_blas == 1);
        float *logits = model_case_run(c, open_cuda(), 0, &n_vocab);
        rms[with_blas] = model_case_check(c, logits, n_vocab, ROUNDINGS[with_blas], with_blas ? "cuBLAS" : "cuda");
        free(logits);
    }
    printf("%-60s %.1e, with cuBLAS %.1e\n", strrchr(c->path, '/') + 1, rms[0], rms[1]);
}

/* Every type of tensor is in test_cuda_products; here are the families, shapes, pairings and containers. */
static void test_logits_match_float64(void **state) {
    (void)state;
    static const char *const NAMES[] = {"q4_1",
                                        "qwen2_q8_0",
                                        "qwen3_q8_0",
                                        "gemma3_global",
                                        "olmo2_f32",
                                        "smollm3_f32",
                                        "rope_freqs",
                                        "head_dim_48",
                                        "head_dim_18",
                                        "three_query_heads_a_group",
                                        "llama2c_v2_untied_32"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        ModelCase c;
        char name[64];
        snprintf(name, sizeof name, "models/%s.tokens", NAMES[i]);
        assert_true(model_case_load(&c, fixture_path("STOWKV_FIXTURES", name)));
        check_model(&c);
        model_case_free(&c);
    }
}

/* ---- The modes */

typedef struct Run {
    Model model;
    Context context;
} Run;

static void open_run(Run *run, Backend *backend, const char *model, const char *policy_text, size_t n_batch) {
    Error error = {0};
    KvPolicy policy = kv_policy_full();
    policy.group = 32;
    policy.rounding = KV_ROUND_NEAREST; /* as the GPU's encoders do */
    if (kv_policy_parse(policy_text, &policy, &error) < 0 ||
        model_open(&run->model, fixture_path("STOWKV_FIXTURES", model), backend, &error) < 0 ||
        context_open(&run->context, &run->model, &policy, N_CTX, n_batch, &error) < 0)
        fail_msg("%s: %s", policy_text, error.message);
}

static void close_run(Run *run) {
    context_close(&run->context);
    model_close(&run->model);
}

static int32_t most_likely(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

static void step(Run *run, const int32_t *tokens, size_t n) {
    Error error = {0};
    if (forward(&run->context, tokens, n, LOGITS_LAST, &error) < 0)
        fail_msg("%s", error.message);
}

/* Root of the mean squared difference of logits, relative to those of `expected`. */
static double difference(const float *logits, const float *expected, size_t n) {
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)logits[i] - (double)expected[i];
        error += d * d;
        size += (double)expected[i] * (double)expected[i];
    }
    return sqrt(error / size);
}

/* A prompt in batches, then greedily the CPU's choice. Tensor cores meet queries and weights in FP16, which moves these
 * logits by some 2e-3, as much as FP16 keys and values do (see model_cases.c). The two backends round keys and values
 * to other halves now and then; a code of 8 bits that differs for that moves them by 1e-3, one of 4 bits, which is
 * rarer, by 1e-2: then two tokens that are nearly as likely may change places. */
static void check_mode(const char *model, const char *policy, size_t n_decoded, double tolerance, size_t least_same) {
    Error error = {0};
    Run cpu, cuda;
    open_run(&cpu, open_cpu(), model, policy, 37);
    open_run(&cuda, open_cuda(), model, policy, 37);
    size_t n_vocab = cpu.model.checkpoint.config.n_vocab, n_same = 0;
    for (size_t done = 0; done < PROMPT;) {
        int32_t tokens[64];
        size_t n = context_batch(&cpu.context, PROMPT - done);
        for (size_t t = 0; t < n; t++)
            tokens[t] = random_windows()[PROMPT_BEGIN + done + t] % (int32_t)n_vocab;
        step(&cpu, tokens, n);
        step(&cuda, tokens, n);
        done += n;
    }
    double worst = 0;
    for (size_t t = 0; t < n_decoded; t++) {
        double differs = difference(cuda.context.logits, cpu.context.logits, n_vocab);
        int32_t token = most_likely(cpu.context.logits, n_vocab);
        worst = fmax(worst, differs);
        n_same += token == most_likely(cuda.context.logits, n_vocab);
        step(&cpu, &token, 1);
        step(&cuda, &token, 1);
    }
    printf("%-24s %-44s %.1e, %zu of %zu tokens the same\n", model, policy, worst, n_same, n_decoded);
    if (!(worst <= tolerance) || n_same < least_same)
        fail_msg("%s, %s: logits differ by %.3g of their size, %zu of %zu tokens are the same", model, policy, worst,
                 n_same, n_decoded);
    if (proof_check(&cuda.context.cache, cuda.context.cache.n_tokens, &error) < 0)
        fail_msg("%s: %s", policy, error.message);
    close_run(&cpu);
    close_run(&cuda);
}

static void test_modes(void **state) {
    (void)state;
    cuda_shim_set_blas(false);
    check_mode("models/f32.gguf", "f16:*", DECODED, 5e-3, DECODED);
    check_mode("models/f32.gguf", "sink=4,f16:16", DECODED, 5e-3, DECODED);
    check_mode("models/f32.gguf", "sink=4,f16:16,int8:*", DECODED, 1e-2, DECODED);
    check_mode("models/f32.gguf", "sink=4,f16:0,int8:32,q4_0:*", FEW, 1e-1, FEW - 1);
    check_mode("models/qwen2_q8_0.gguf", "sink=2,f16:16,int4/int3:*", FEW, 1e-1, FEW - 1);
    check_mode("models/head_dim_128.gguf", "sink=4,f16:16,fp8/q5_1:*", FEW, 1e-1, FEW - 1);
    check_mode("models/head_dim_48.gguf", "sink=4,f16:16,int8:*", FEW, 5e-3, FEW);
    check_mode("models/head_dim_100.gguf", "sink=4,f16:16", FEW, 5e-3, FEW);
    check_mode("models/head_dim_100.gguf", "sink=4,f16:0,int8:32,q8_0:*", FEW, 1e-2, FEW);
    check_mode("models/head_dim_90.gguf", "rotate=off,sink=4,f16:16,q4_1:*", FEW, 1e-1, FEW - 1);
    cuda_shim_reset();
}

/* With cuBLAS prompts are multiplied in FP16, which moves logits by RMS_TOLERANCE * HALVES_FACTOR of model_cases.c: the
 * whole prompt's keys and values are off, and all that is decoded after it sees them. */
static void test_modes_with_cublas(void **state) {
    (void)state;
    check_mode("models/f32.gguf", "f16:*", FEW, 3e-2, FEW);
    check_mode("models/qwen2_q8_0.gguf", "sink=4,f16:16,int8:*", FEW, 3e-2, FEW);
}

/* Twice the same bits, and without an allocation or a leak. */
static void test_repeats(void **state) {
    (void)state;
    Run run;
    float *first = NULL;
    open_run(&run, open_cuda(), "models/f32.gguf", "sink=4,f16:16,int8:*", 0);
    size_t n_vocab = run.model.checkpoint.config.n_vocab;
    for (unsigned seed = 0; seed < 2; seed++) {
        cuda_shim_set_seed(seed);
        context_clear(&run.context);
        long n_allocations = cuda_shim_counts().allocations;
        step(&run, random_windows(), 50);
        step(&run, random_windows() + 50, 1);
        assert_int_equal(cuda_shim_counts().allocations, n_allocations);
        if (first == NULL)
            first = memcpy(malloc(n_vocab * sizeof *first), run.context.logits, n_vocab * sizeof *first);
        assert_memory_equal(run.context.logits, first, n_vocab * sizeof *first);
    }
    cuda_shim_set_seed(0);
    free(first);
    close_run(&run);
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
}

/* The ledger is what the device gave, but for the description of the layout. */
static void test_memory(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"f16:*", "sink=16,f16:32,int8:*", "sink=16,f16:32,int4:512,int2:*"};
    for (size_t i = 0; i < 3; i++) {
        Error error = {0};
        Backend *b = open_cuda();
        KvCache cache;
        KvLedger ledger;
        KvPolicy policy = kv_policy_full();
        KvShape shape = {2, 4, 128, 8192, 128, {{0}}, 0};
        assert_int_equal(kv_policy_parse(POLICIES[i], &policy, &error), 0);
        size_t before = cuda_shim_counts().device_bytes;
        assert_int_equal(b->ops->open_cache(b, &cache, &shape, &policy, "the KV cache", &error), 0);
        kv_ledger(&cache, &ledger);
        double taken = (double)(cuda_shim_counts().device_bytes - before);
        assert_true(fabs(taken / (double)(ledger.bytes + ledger.working_bytes) - 1) < 0.02);
        b->ops->close_cache(b, &cache);
        b->ops->close(b);
    }
}

/* Once it is recorded a step is one launch of a graph, a copy of its logits, and waiting for them. */
static void test_recorded_step(void **state) {
    (void)state;
    Run run;
    open_run(&run, open_cuda(), "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    for (size_t t = 0; t < 70; t++) {
        CudaShimCounts before = cuda_shim_counts();
        step(&run, random_windows() + t, 1);
        CudaShimCounts after = cuda_shim_counts();
        long n_calls = after.calls - before.calls - (after.launches - before.launches);
        if (t >= 2 && n_calls > 8)
            fail_msg("step %zu makes %ld calls of the runtime", t, n_calls);
    }
    close_run(&run);
}

/* Calls of one step: those of begin(), RoPE's angles, the embedding, six a layer, the logits. */
static void check_profile(const Profile *profile, const ModelConfig *config, size_t n_decoded) {
    const ProfilePhase *decode = &profile->phases[PROFILE_DECODE];
    static const ProfileOp ONCE[] = {PROFILE_BEGIN, PROFILE_ANGLES, PROFILE_EMBED, PROFILE_LOGITS, PROFILE_READ};
    static const ProfileOp OF_LAYER[] = {PROFILE_QKV,         PROFILE_APPEND,  PROFILE_ATTENTION,
                                         PROFILE_ATTN_OUTPUT, PROFILE_GATE_UP, PROFILE_FFN_DOWN};
    assert_int_equal(decode->n_steps, n_decoded);
    assert_int_equal(profile->phases[PROFILE_PROMPT].n_steps, 2);
    for (size_t i = 0; i < sizeof ONCE / sizeof *ONCE; i++)
        assert_int_equal(decode->ops[ONCE[i]].calls, n_decoded);
    for (size_t i = 0; i < sizeof OF_LAYER / sizeof *OF_LAYER; i++)
        assert_int_equal(decode->ops[OF_LAYER[i]].calls, n_decoded * config->n_layers);
    double counted = profile_counted_seconds(profile), wall = profile_wall_seconds(profile);
    if (counted < 0.95 * wall || counted > 1.001 * wall)
        fail_msg("%.6f s of %.6f s are counted", counted, wall);
}

/* Each call is within its step: marks of a recorded step are set anew each time. */
static void check_events(const Profile *profile) {
    size_t step = 0;
    for (size_t i = 0; i < profile->n_events; i++) {
        const ProfileEvent *event = &profile->events[i];
        if (event->op == PROFILE_CLOCK || event->op == PROFILE_BETWEEN) {
            step += event->op == PROFILE_BETWEEN;
            continue;
        }
        const ProfileStep *s = &profile->steps[step];
        if (event->seconds < 0 || event->begin < s->begin - 1e-5 || event->begin + event->seconds > s->end + 1e-5)
            fail_msg("step %zu, %.6f to %.6f s: %s from %.6f s on takes %.6f s", step, s->begin, s->end,
                     profile_op_name((ProfileOp)event->op), event->begin, event->seconds);
    }
    assert_int_equal(step, profile->n_steps - 1);
}

/* A device times its own calls, a prompt's and those of a recorded step, and the step stays a recording: beside the
 * marks and what reading each of them takes it makes the same few calls of the runtime. */
static void test_profiled_steps(void **state) {
    (void)state;
    Error error = {0};
    Run plain, run;
    Backend *backend = open_cuda(), *timed;
    Profile profile = {0};
    assert_int_equal(timed_backend_open(&timed, backend, &profile, &error), 0);
    open_run(&plain, open_cuda(), "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    open_run(&run, timed, "models/f32.gguf", "sink=4,f16:0,int8:*", 0);
    profile_start(&profile);
    const int32_t *tokens = random_windows();
    size_t n_layers = run.model.checkpoint.config.n_layers, n_marks = 2 + 3 + 6 * n_layers;
    for (size_t t = 0; t < 40; t += 20) { /* results that nobody reads */
        assert_int_equal(forward(&plain.context, tokens + t, 20, LOGITS_NONE, &error), 0);
        assert_int_equal(forward(&run.context, tokens + t, 20, LOGITS_NONE, &error), 0);
    }
    for (size_t t = 0; t < FEW; t++) {
        step(&plain, tokens + 40 + t, 1);
        CudaShimCounts before = cuda_shim_counts();
        step(&run, tokens + 40 + t, 1);
        CudaShimCounts after = cuda_shim_counts();
        long n_calls = after.calls - before.calls - (after.launches - before.launches);
        if (t >= 2 && n_calls > (long)(9 + 2 * n_marks))
            fail_msg("step %zu makes %ld calls of the runtime", t, n_calls);
        assert_memory_equal(plain.context.logits, run.context.logits,
                            run.model.checkpoint.config.n_vocab * sizeof *run.context.logits);
    }
    check_profile(&profile, &run.model.checkpoint.config, FEW);
    check_events(&profile);
    close_run(&plain);
    close_run(&run);
    profile_free(&profile);
}

/* Norms, SiLU and residuals are in the launches of products: a layer is six of them, q, k and v, append, attention, its
 * output, gate and up, and down. Beside them the place in the cache, its plan, RoPE's angles, the embedding, logits. */
static void test_launches(void **state) {
    (void)state;
    Run run;
    open_run(&run, open_cuda(), "models/head_dim_128.gguf", "sink=4,f16:16,int8:*", 0);
    size_t n_layers = run.model.checkpoint.config.n_layers;
    step(&run, random_windows(), 20);
    long before = cuda_shim_counts().launches;
    step(&run, random_windows() + 20, 1);
    assert_int_equal(cuda_shim_counts().launches - before, 6 * n_layers + 5);
    close_run(&run);
}

/* ---- States */

/* All pieces of one cache's state into the other. */
static void copy_state(const Context *from_context, Context *to_context) {
    Error error = {0};
    const KvCache *from = &from_context->cache;
    KvCache *to = &to_context->cache;
    const KvMemory source = context_memory(from_context), target = context_memory(to_context);
    size_t n = kv_pieces(&from->layout, from->n_tokens, NULL);
    KvPiece *pieces = calloc(n, sizeof *pieces);
    kv_pieces(&from->layout, from->n_tokens, pieces);
    for (size_t i = 0; i < n; i++) {
        uint8_t *bytes = malloc(pieces[i].size_bytes);
        if (kv_piece_save(from, &pieces[i], &source, bytes, &error) < 0 ||
            kv_piece_load(to, from->n_tokens, &pieces[i], &target, bytes, &error) < 0)
            fail_msg("%s", error.message);
        free(bytes);
    }
    kvcache_resume(to, from->n_tokens);
    free(pieces);
}

/* A run that goes on from another's state, wherever that was taken, has its logits, bit for bit. */
static void test_states_go_on(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"f16:*", "sink=4,f16:16,int8:*", "sink=4,f16:0,int8:32,q4_0:*",
                                           "sink=4,f16:40"};
    static const size_t CUTS[] = {1, 20, 64, 75};
    const int32_t *tokens = random_windows();
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES; i++)
        for (size_t j = 0; j < sizeof CUTS / sizeof *CUTS; j++) {
            Run cold, warm;
            open_run(&cold, open_cuda(), "models/f32.gguf", POLICIES[i], 0);
            open_run(&warm, open_cuda(), "models/f32.gguf", POLICIES[i], 0);
            step(&cold, tokens, CUTS[j]);
            copy_state(&cold.context, &warm.context);
            for (size_t n = 0; n < 3; n++) { /* a batch, then single tokens */
                size_t first = CUTS[j] + (n == 0 ? 0 : 20 + n), count = n == 0 ? 21 : 1;
                step(&cold, tokens + first, count);
                step(&warm, tokens + first, count);
                assert_memory_equal(cold.context.logits, warm.context.logits,
                                    cold.model.checkpoint.config.n_vocab * sizeof(float));
            }
            close_run(&cold);
            close_run(&warm);
        }
}

/* ---- Evaluators */

static void check_evaluation(double ppl_tolerance, double error_tolerance) {
    TestRun cpu, cuda;
    RunOptions options = {.model = "models/f32.gguf",
                          .tokens = random_windows(),
                          .n_tokens = 160,
                          .settings = {.definition = PPL_LLAMACPP, .context = 80},
                          .n_batch = 64,
                          .divergence = true,
                          .attribution = true,
                          .policies = {"f16:*", "rounding=nearest,sink=4,f16:8,int4:*"}};
    test_run(&cpu, &options);
    options.backend = open_cuda();
    test_run(&cuda, &options);
    for (size_t i = 0; i < 2; i++) {
        double ppl = evaluation_ppl(&cuda.e, cuda.e.modes[i].nll),
               expected = evaluation_ppl(&cpu.e, cpu.e.modes[i].nll);
        printf("perplexity %.6g, on the CPU %.6g\n", ppl, expected);
        assert_true(fabs(ppl / expected - 1) < ppl_tolerance);
    }
    for (size_t layer = 0; layer < cpu.model.checkpoint.config.n_layers; layer++)
        for (size_t head = 0; head < cpu.model.checkpoint.config.n_kv_heads; head++) {
            HeadError a = attribution_error(cpu.e.modes[1].attribution, layer, head);
            HeadError b = attribution_error(cuda.e.modes[1].attribution, layer, head);
            assert_true(fabs(a.keys - b.keys) < error_tolerance * a.keys &&
                        fabs(a.values - b.values) < error_tolerance * a.values);
            assert_true(fabs(a.output - b.output) < error_tolerance * a.output && a.output > 0);
        }
    test_run_close(&cpu);
    test_run_close(&cuda);
}

/* Logits that are 1e-3 to 3e-3 off move each token's likelihood by as much, the mean of 80 of them by less; but INT4
 * has codes that change for it. Its errors are as large as before, in other places. */
static void test_evaluation(void **state) {
    (void)state;
    cuda_shim_set_blas(false);
    check_evaluation(3e-3, 0.02);
    cuda_shim_reset();
    check_evaluation(1e-2, 0.1);
}

/* ---- Speed */

/* What is measured is the device's memory, and reports say so. */
static void test_bench(void **state) {
    (void)state;
    Error error = {0};
    Model model;
    KvPolicy policies[] = {kv_policy_full(), kv_policy_quantized(4, 32, KV_INT8, KV_INT8)};
    Bench bench = {.model = &model,
                   .model_path = "tiny",
                   .depths = {.items = {0, 60}, .count = 2},
                   .n_prompt = 20,
                   .n_generate = 2,
                   .n_repetitions = 1};
    char text[COMPUTED_BY_TEXT];
    if (model_open(&model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), open_cuda(), &error) < 0 ||
        bench_open(&bench, policies, 2, N_CTX, &error) < 0 || bench_run(&bench, &error) < 0)
        fail_msg("%s", error.message);
    assert_string_equal(computed_by(model.backend, text), "cuda, Simulated GPU 0, sm_90");
    assert_true(bench.bandwidth.by_device && bench.bandwidth.cache_bytes == 4 << 20);
    assert_int_equal(bench.bandwidth.buffer_bytes, 64 << 20);
    cJSON *json = bench_json(&bench);
    assert_string_equal(cJSON_GetObjectItem(json, "bandwidth_of")->valuestring, "device copies");
    assert_true(cJSON_GetObjectItem(json, "read_bandwidth")->valuedouble > 1e6);
    assert_null(cJSON_GetObjectItem(json, "read_bandwidth_one_thread"));
    cJSON_Delete(json);
    bench_close(&bench);
    model_close(&model);
    assert_int_equal(cuda_shim_counts().n_allocated, 0);
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

/* Reports tell whether prompts are multiplied in FP16. */
static void test_names(void **state) {
    (void)state;
    for (int with_blas = 0; with_blas < 2; with_blas++) {
        Run run;
        char name[KERNEL_NAME_BYTES];
        cuda_shim_set_blas(with_blas == 1);
        open_run(&run, open_cuda(), "models/q4_1.gguf", "f16:*", 0);
        const Tensor *w = &run.model.weights.layers[0].attn_q;
        run.model.backend->ops->name_matmul(run.model.backend, w, 1, name);
        assert_string_equal(name, "matmul_q4_1_f32_sm90");
        run.model.backend->ops->name_matmul(run.model.backend, w, 128, name);
        assert_string_equal(name, with_blas ? "matmul_q4_1_f16cublas_sm90" : "matmul_q4_1_f32_sm90");
        close_run(&run);
    }
    cuda_shim_reset();
}

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
        Run run = {0};
        cuda_shim_set_memory(size_bytes);
        Backend *backend = open_auto(&error);
        status = backend == NULL
                     ? error.code
                     : model_open(&run.model, fixture_path("STOWKV_FIXTURES", "models/f32.gguf"), backend, &error);
        bool is_open = status == 0;
        if (is_open)
            status = context_open(&run.context, &run.model, &policy, N_CTX, 0, &error);
        if (status < 0 && (status != ERROR_MEMORY || strstr(error.message, "--device cpu") == NULL))
            fail_msg("%zu bytes of memory: \"%s\"", size_bytes, error.message);
        n_refused += status < 0;
        if (is_open) {
            assert_string_equal(run.model.backend->device, "cuda");
            close_run(&run);
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
            Run run = {0};
            cuda_shim_fail_after(call, errors[e]);
            int status = cuda_backend_open(&backend, SIMD_SCALAR, 1, &error);
            if (status == 0)
                status = model_open(&run.model, path, backend, &error);
            bool opened = status == 0;
            if (opened)
                status = context_open(&run.context, &run.model, &policy, N_CTX, 0, &error);
            if (status == 0)
                status = forward(&run.context, random_windows(), 20, LOGITS_LAST, &error);
            bool failed = cuda_shim_counts().failed;
            if (opened)
                close_run(&run);
            assert_int_equal(cuda_shim_counts().n_allocated, 0);
            cuda_shim_reset();
            if (!failed)
                break;
            if (status == 0 || error.message[0] == '\0')
                fail_msg("call %ld failed, and nobody said so", call);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_kernels_lack),
        cmocka_unit_test(test_logits_match_float64),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_modes_with_cublas),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_recorded_step),
        cmocka_unit_test(test_profiled_steps),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_states_go_on),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_copies_may_fail),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_no_kernels),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_auto_tells),
        cmocka_unit_test(test_auto_needs_memory),
        cmocka_unit_test(test_every_call_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
