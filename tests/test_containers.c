/* The same weights in every container: logits against the float64 reference, to the bit the same wherever rows of q and
 * k have the same order, and then the same fingerprint. */
#include "base/simd/detect.h"
#include "checkpoints/fused.h"
#include "checkpoints/open.h"
#include "cpu/backend.h"
#include "tests/compared_bytes.h"
#include "tests/fixture_files.h"
#include "tests/model_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Containers that must give the same bits, of the model whose tokens and logits have the name. */
static const struct {
    const char *model, *containers[10];
} SAME[] = {
    {"f32",
     {"f32.gguf", "f32.bin", "f32_fast", "f32_fast/model.pth", "f32_meta", "f32_meta/consolidated.00.pth",
      "f32_meta/params.json"}},
    {"f32", {"f32.gguf", "f32_meta2", "f32_meta2/consolidated.01.pth", "f32_meta4"}},
    {"f32",
     {"f32_hf", "f32_hf/model.safetensors", "f32_hf/config.json", "f32_sharded",
      "f32_sharded/model-00002-of-00002.safetensors", "f32_sharded/model.safetensors.index.json", "f32_torch",
      "f32_torch/pytorch_model.bin"}},
    {"f16", {"f16.gguf", "f16_fast", "f16_meta", "f16_meta4"}},
    {"f16", {"f16_hf", "f16_sharded", "f16_torch"}},
    {"bf16", {"bf16.gguf", "bf16_fast", "bf16_meta"}},
    {"bf16", {"bf16_meta2", "bf16_meta2/consolidated.00.pth"}}, /* with a tensor more: RoPE's frequencies */
    {"bf16", {"bf16_hf", "bf16_sharded", "bf16_torch"}},
    {"qwen2_f32", {"qwen2_f32.gguf", "qwen2_f32_hf", "qwen2_f32_sharded"}},
    {"qwen3_f32", {"qwen3_f32.gguf", "qwen3_f32_hf"}},
    {"gemma3_f32", {"gemma3_f32.gguf", "gemma3_f32_hf", "gemma3_f32_sharded"}},
    {"gemma2_f32", {"gemma2_f32.gguf", "gemma2_f32_hf"}},
    {"olmo2_f32", {"olmo2_f32.gguf", "olmo2_f32_hf"}},
    {"phi3_f32", {"phi3_f32.gguf", "phi3_f32_hf"}},
    {"phi3_long_f32", {"phi3_long_f32.gguf"}},
    {"phi3_long_f32", {"phi3_long_f32_hf", "phi3_long_f32_sharded"}},
    {"phi3_short_f32", {"phi3_short_f32.gguf"}},
    {"phi3_short_f32", {"phi3_short_f32_hf"}},
    {"smollm3_f32", {"smollm3_f32.gguf"}},
    {"smollm3_f32", {"smollm3_f32_hf"}},
    {"mistral_f32", {"mistral_f32.gguf"}},
    {"mistral_f32", {"mistral_f32_hf"}},
    {"llama3", {"llama3.gguf", "llama3_fast", "llama3_meta4"}},
    {"llama3", {"llama3_hf", "llama3_sharded", "llama3_torch"}},
};

static float *run(ModelCase *c, const char *container, size_t *n_vocab) {
    Error error = {0};
    Backend *backend;
    char name[256];
    snprintf(name, sizeof name, "containers/%s", container);
    snprintf(c->path, sizeof c->path, "%s", fixture_path("STOWKV_FIXTURES", name));
    assert_int_equal(cpu_backend_open(&backend, cpu_best_simd_level(), 1, &error), 0);
    return model_case_run(c, backend, 0, n_vocab);
}

static uint64_t fingerprint(const char *path) {
    Error error = {0};
    Checkpoint checkpoint;
    if (checkpoint_open(&checkpoint, path, &error) < 0)
        fail_msg("%s", error.message);
    uint64_t hash = checkpoint_fingerprint(&checkpoint);
    checkpoint_close(&checkpoint);
    return hash;
}

static void test_same_logits(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) {
        ModelCase c;
        char name[256];
        float *first = NULL;
        uint64_t first_hash = 0;
        snprintf(name, sizeof name, "containers/%s.tokens", SAME[i].model);
        assert_true(model_case_load(&c, fixture_path("STOWKV_FIXTURES", name)));
        for (size_t j = 0; j < 10 && SAME[i].containers[j] != NULL; j++) {
            size_t n_vocab;
            float *logits = run(&c, SAME[i].containers[j], &n_vocab);
            double rms = model_case_check(&c, logits, n_vocab, ROUNDS_NOTHING, "cpu");
            printf("%-50s %.1e\n", SAME[i].containers[j], rms);
            uint64_t hash = fingerprint(c.path);
            if (first == NULL) {
                first = logits;
                first_hash = hash;
                continue;
            }
            if (memcmp(logits, first, c.n_tokens * n_vocab * sizeof *logits) != 0)
                fail_msg("%s: other logits than %s", SAME[i].containers[j], SAME[i].containers[0]);
            if (hash != first_hash)
                fail_msg("%s: another fingerprint than %s", SAME[i].containers[j], SAME[i].containers[0]);
            free(logits);
        }
        free(first);
        model_case_free(&c);
    }
}

/* More tensors than anyone looks at once for each layer: names compared grow with their number and its logarithm. */
static void test_many_tensors(void **state) {
    (void)state;
    enum { LAYERS = 2000, MORE = 60000, LENGTH = 40 };
    Error error = {0};
    Checkpoint checkpoint = {.config = {.family = model_family_find(sv("phi3"), "phi3", &error),
                                        .n_layers = LAYERS,
                                        .n_heads = 1,
                                        .n_kv_heads = 1,
                                        .head_dim = 2}};
    char(*names)[LENGTH] = calloc(LAYERS + MORE, sizeof *names);
    assert_non_null(checkpoint_add_tensors(&checkpoint, LAYERS + MORE, &error));
    for (size_t i = 0; i < LAYERS + MORE; i++) {
        snprintf(names[i], LENGTH, i < LAYERS ? "blk.%zu.attn_qkv.weight" : "bl%zu.attn_qkv.weight", i);
        checkpoint.tensors[i] = (Tensor){.name = sv(names[i]), .n_dims = 2, .shape = {1, 6, 1, 1}, .size_bytes = 6};
    }
    n_comparisons = 0;
    if (checkpoint_split_fused(&checkpoint, "phi3", &error) < 0)
        fail_msg("%s", error.message);
    assert_in_range(n_comparisons, 1, 40 * (LAYERS + MORE));
    assert_int_equal(checkpoint.n_tensors, 3 * LAYERS + MORE);
    assert_int_equal(checkpoint_sort_tensors(&checkpoint, "phi3", &error), 0);
    const Tensor *part = checkpoint_tensor(&checkpoint, "blk.1999.attn_v.weight");
    assert_non_null(part);
    assert_int_equal(part->shape[1], 2);
    checkpoint_close(&checkpoint);
    free(names);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_logits), cmocka_unit_test(test_many_tensors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
