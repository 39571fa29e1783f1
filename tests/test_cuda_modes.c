/* What the CUDA backend computes, its kernels run on the host (tests/cuda_shim): logits of tiny models against the
 * float64 forward pass; the text that the CPU's backend writes, in all modes; perplexity, divergence and attribution as
 * on the CPU; the bytes that attention read; what reports say of it. */
#include "eval/bench/report.h"
#include "eval/proof.h"
#include "session/run_report.h"
#include "tests/cuda_run.h"
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

enum { PROMPT_BEGIN = 40, PROMPT = 60, DECODED = 40, FEW = 10 };

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
 * rarer, by 1e-2: then two tokens that are nearly as likely may change places. Of rotated rows more codes differ, for
 * each of them has a share of that half. */
static void check_mode(const char *model, const char *policy, size_t n_decoded, double tolerance, size_t least_same) {
    Error error = {0};
    ModelRun cpu, cuda;
    cuda_run_open(&cpu, open_cpu(1), model, policy, 37);
    cuda_run_open(&cuda, open_cuda(), model, policy, 37);
    size_t n_vocab = cpu.model.checkpoint.config.n_vocab, n_same = 0;
    for (size_t done = 0; done < PROMPT;) {
        int32_t tokens[64];
        size_t n = context_batch(&cpu.context, PROMPT - done);
        for (size_t t = 0; t < n; t++)
            tokens[t] = random_windows()[PROMPT_BEGIN + done + t] % (int32_t)n_vocab;
        model_run_step(&cpu, tokens, n);
        model_run_step(&cuda, tokens, n);
        done += n;
    }
    double worst = 0;
    for (size_t t = 0; t < n_decoded; t++) {
        double differs = difference(cuda.context.logits, cpu.context.logits, n_vocab);
        int32_t token = most_likely(cpu.context.logits, n_vocab);
        worst = fmax(worst, differs);
        n_same += token == most_likely(cuda.context.logits, n_vocab);
        model_run_step(&cpu, &token, 1);
        model_run_step(&cuda, &token, 1);
    }
    printf("%-24s %-44s %.1e, %zu of %zu tokens the same\n", model, policy, worst, n_same, n_decoded);
    if (!(worst <= tolerance) || n_same < least_same)
        fail_msg("%s, %s: logits differ by %.3g of their size, %zu of %zu tokens are the same", model, policy, worst,
                 n_same, n_decoded);
    if (proof_check(&cuda.context.cache, cuda.context.cache.n_tokens, &error) < 0)
        fail_msg("%s: %s", policy, error.message);
    model_run_close(&cpu);
    model_run_close(&cuda);
}

static void test_modes(void **state) {
    (void)state;
    cuda_shim_set_blas(false);
    check_mode("models/f32.gguf", "f16:*", DECODED, 5e-3, DECODED);
    check_mode("models/f32.gguf", "sink=4,f16:16", DECODED, 5e-3, DECODED);
    check_mode("models/f32.gguf", "rotate=off,sink=4,f16:16,int8:*", DECODED, 1e-2, DECODED);
    check_mode("models/f32.gguf", "sink=4,f16:16,int8:*", FEW, 1e-2, FEW);
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
        bench_open(&bench, policies, 2, CUDA_RUN_CTX, &error) < 0 || bench_run(&bench, &error) < 0)
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

/* Reports tell whether prompts are multiplied in FP16. */
static void test_names(void **state) {
    (void)state;
    for (int with_blas = 0; with_blas < 2; with_blas++) {
        ModelRun run;
        char name[KERNEL_NAME_BYTES];
        cuda_shim_set_blas(with_blas == 1);
        cuda_run_open(&run, open_cuda(), "models/q4_1.gguf", "f16:*", 0);
        const Tensor *w = &run.model.weights.layers[0].attn_q;
        run.model.backend->ops->name_matmul(run.model.backend, w, 1, name);
        assert_string_equal(name, "matmul_q4_1_f32_sm90");
        run.model.backend->ops->name_matmul(run.model.backend, w, 128, name);
        assert_string_equal(name, with_blas ? "matmul_q4_1_f16cublas_sm90" : "matmul_q4_1_f32_sm90");
        model_run_close(&run);
    }
    cuda_shim_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_float64),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_modes_with_cublas),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
