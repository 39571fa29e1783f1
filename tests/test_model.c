/* Logits of tiny random models, every tensor type and container, against the float64 forward pass of
 * tests/fixtures/reference_llama.py; and that batches, threads and instruction sets do not change them. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "model/model.h"
#include "tests/fixture_files.h"
#include "tests/model_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Closed by model_case_run(). */
static Backend *open_backend(SimdLevel level, int n_threads) {
    Error error = {0};
    Backend *backend;
    assert_int_equal(cpu_backend_open(&backend, level, n_threads, &error), 0);
    return backend;
}

static void check_levels(ModelCase *c) {
    double worst = 0;
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        size_t n_vocab;
        float *logits = model_case_run(c, open_backend(level, 2), 0, &n_vocab);
        worst = fmax(worst, model_case_check(c, logits, n_vocab, ROUNDS_CODED_TO_INT16, simd_level_features(level)));
        free(logits);
    }
    printf("%-60s %.1e\n", strrchr(c->path, '/') + 1, worst);
}

static void test_logits_match_float64(void **state) {
    (void)state;
    assert_true(model_cases_each(check_levels) >= 41);
}

/* Sums have one order whatever the batch, so it is the same to the bit. */
static void check_same(const char *fixture) {
    ModelCase c;
    assert_true(model_case_load(&c, fixture_path("STOWKV_FIXTURES", fixture)));
    const size_t batches[] = {1, 7, 16, 64};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        size_t n_vocab;
        float *whole = model_case_run(&c, open_backend(level, 1), 0, &n_vocab);
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
            for (int n_threads = 1; n_threads <= 3; n_threads++) {
                float *logits = model_case_run(&c, open_backend(level, n_threads), batches[i], &n_vocab);
                assert_memory_equal(logits, whole, c.n_tokens * n_vocab * sizeof *logits);
                free(logits);
            }
        free(whole);
    }
    model_case_free(&c);
}

static void test_batches_and_threads_change_nothing(void **state) {
    (void)state;
    check_same("models/q4_1.tokens");
    check_same("models/q6_k.tokens");
    check_same("models/head_dim_48.tokens");
    check_same("models/head_dim_18.tokens");
    check_same("models/llama2c_v2_untied_32.tokens");
    check_same("models/qwen2_q8_0.tokens");
    check_same("models/gemma3_q5_0.tokens");
    check_same("models/gemma2_f32.tokens");
    check_same("models/olmo2_q4_0.tokens");
}

static void test_forward_refuses(void **state) {
    (void)state;
    ModelCase c;
    assert_true(model_case_load(&c, fixture_path("STOWKV_FIXTURES", "models/f32.tokens")));
    Error error = {0};
    Backend *backend;
    Model model;
    Context context;
    assert_int_equal(cpu_backend_open(&backend, SIMD_SCALAR, 1, &error), 0);
    assert_int_equal(model_open(&model, c.path, backend, &error), 0);
    KvPolicy policy = kv_policy_full();
    assert_int_equal(context_open(&context, &model, &policy, 4, 0, &error), 0);
    int32_t unknown[] = {-1}, beyond[] = {(int32_t)model.checkpoint.config.n_vocab};
    assert_int_equal(forward(&context, unknown, 1, LOGITS_LAST, &error), ERROR_ARGUMENT);
    assert_int_equal(forward(&context, beyond, 1, LOGITS_LAST, &error), ERROR_ARGUMENT);
    assert_int_equal(forward(&context, c.tokens, 0, LOGITS_LAST, &error), ERROR_ARGUMENT);
    assert_int_equal(forward(&context, c.tokens, 5, LOGITS_LAST, &error), ERROR_ARGUMENT);
    assert_int_equal(forward(&context, c.tokens, 4, LOGITS_LAST, &error), 0);
    assert_int_equal(forward(&context, c.tokens, 1, LOGITS_LAST, &error), ERROR_ARGUMENT);
    context_close(&context);
    model_close(&model);
    model_case_free(&c);
}

/* Every field of the weights has one row of the table of roles. */
static void test_every_field_has_a_role(void **state) {
    (void)state;
    const size_t sizes[] = {offsetof(Weights, layers), sizeof(LayerWeights)};
    for (int in_layer = 0; in_layer <= 1; in_layer++)
        for (size_t field = 0; field < sizes[in_layer]; field += sizeof(Tensor)) {
            int n_rows = 0;
            for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
                n_rows += TENSOR_ROLES[i].in_layer == in_layer && TENSOR_ROLES[i].field == field;
            if (n_rows != 1)
                fail_msg("tensor %zu of %s has %d roles", field / sizeof(Tensor), in_layer ? "LayerWeights" : "Weights",
                         n_rows);
        }
}

/* Matrices in the order in which a backend was given them, or products read them; in `group`, the call of each. */
typedef struct Recorded {
    const Tensor *matrices[64], *biases[64];
    size_t group[64]; /* which call a matrix came in */
    size_t n, n_calls;
} Recorded;

static Recorded uploaded, multiplied;
static const BackendOps *recorded_ops;

static void record(Recorded *to, const Tensor *matrix, const Tensor *bias) {
    assert_true(to->n < 64);
    to->matrices[to->n] = matrix;
    to->biases[to->n] = bias;
    to->group[to->n++] = to->n_calls;
}

static int record_upload(Backend *backend, Tensor *const *tensors, size_t n, TensorUse use, Error *error) {
    for (size_t i = 0; i < n && use == TENSOR_MATRIX; i++)
        record(&uploaded, tensors[i], NULL);
    uploaded.n_calls += use == TENSOR_MATRIX;
    return recorded_ops->upload(backend, tensors, n, use, error);
}

static void record_matmul(Backend *backend, const WeightProduct *products, size_t n, RmsNorm norm, const float *x,
                          size_t n_tokens) {
    for (size_t i = 0; i < n; i++)
        record(&multiplied, products[i].w, products[i].bias);
    multiplied.n_calls++;
    recorded_ops->matmul(backend, products, n, norm, x, n_tokens);
}

static void record_matmul_gated(Backend *backend, const WeightProduct gate_up[2], GateActivation activation,
                                RmsNorm norm, const float *x, size_t n_tokens) {
    for (size_t i = 0; i < 2; i++)
        record(&multiplied, gate_up[i].w, gate_up[i].bias);
    multiplied.n_calls++;
    recorded_ops->matmul_gated(backend, gate_up, activation, norm, x, n_tokens);
}

static void record_matmul_add(Backend *backend, const WeightProduct *product, RmsNorm norm, const float *x,
                              size_t n_tokens) {
    record(&multiplied, product->w, product->bias);
    multiplied.n_calls++;
    recorded_ops->matmul_add(backend, product, norm, x, n_tokens);
}

/* The bias that goes with a matrix by its name; NULL where the model has none. */
static const Tensor *bias_of(const Model *model, const Tensor *matrix) {
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++)
        for (size_t layer = 0; layer < role_copies(&TENSOR_ROLES[i], &model->checkpoint.config); layer++) {
            const Tensor *tensor = role_tensor(&TENSOR_ROLES[i], &model->weights, layer);
            size_t stem = matrix->name.length - strlen("weight");
            if (tensor->data != NULL && tensor->name.length == stem + strlen("bias") &&
                memcmp(tensor->name.bytes, matrix->name.bytes, stem) == 0)
                return tensor;
        }
    return NULL;
}

/* Matrices are uploaded by the table of roles in the order and groups in which the forward pass reads them. Where the
 * two differ results stay right, but weights do not lie in memory as they are read. */
static void check_products(const char *fixture, size_t n_biases) {
    Error error = {0};
    Backend *backend;
    Model model;
    Context context;
    KvPolicy policy = kv_policy_full();
    uploaded = multiplied = (Recorded){0};
    assert_int_equal(cpu_backend_open(&backend, SIMD_SCALAR, 1, &error), 0);
    recorded_ops = backend->ops;
    BackendOps ops = *recorded_ops;
    ops.upload = record_upload;
    ops.matmul = record_matmul;
    ops.matmul_gated = record_matmul_gated;
    ops.matmul_add = record_matmul_add;
    backend->ops = &ops;
    if (model_open(&model, fixture_path("STOWKV_FIXTURES", fixture), backend, &error) < 0 ||
        context_open(&context, &model, &policy, 4, 0, &error) < 0 ||
        forward(&context, (const int32_t[]){1}, 1, LOGITS_LAST, &error) < 0)
        fail_msg("%s", error.message);
    assert_int_equal(uploaded.n, 7 * model.checkpoint.config.n_layers + 1);
    assert_int_equal(uploaded.n, multiplied.n);
    for (size_t i = 0; i < multiplied.n; i++) {
        const Tensor *w = uploaded.matrices[i], *asked = multiplied.matrices[i];
        if (w != asked || uploaded.group[i] != multiplied.group[i])
            fail_msg("matrix %zu: uploaded %.*s with product %zu, the forward pass asks for %.*s with product %zu", i,
                     SV_ARGS(w->name), uploaded.group[i], SV_ARGS(asked->name), multiplied.group[i]);
        assert_ptr_equal(multiplied.biases[i], bias_of(&model, multiplied.matrices[i]));
        n_biases -= multiplied.biases[i] != NULL;
    }
    assert_int_equal(n_biases, 0);
    context_close(&context);
    model_close(&model);
}

static void test_products_are_uploaded_together(void **state) {
    (void)state;
    check_products("models/f32.gguf", 0);
    check_products("models/qwen2_f32.gguf", 2 * 3);
    check_products("models/gemma3_f32.gguf", 0);
    check_products("models/phi3_f32.gguf", 0);
}

/* What Gemma's and SmolLM3's published configurations say: query_pre_attn_scalar, layer_types, no_rope_layers. */
static void test_configurations_of_families(void **state) {
    (void)state;
    ModelConfig gemma3 = {.family = model_family_find(sv("gemma3"), "", NULL),
                          .n_layers = 62,
                          .n_embd = 5376,
                          .n_heads = 32,
                          .head_dim = 128,
                          .lookback = 1024};
    ModelConfig gemma2 = {.family = model_family_find(sv("gemma2"), "", NULL),
                          .n_layers = 46,
                          .n_embd = 4608,
                          .n_heads = 32,
                          .head_dim = 128,
                          .lookback = 4096};
    ModelConfig smollm3 = {.family = model_family_find(sv("smollm3"), "", NULL), .n_layers = 36, .n_embd = 2048};
    ModelConfig *const configs[] = {&gemma3, &gemma2, &smollm3};
    for (size_t i = 0; i < 3; i++)
        model_config_complete(configs[i]);
    assert_float_equal(gemma3.score_divisor, 168, 0);
    assert_float_equal(gemma2.score_divisor, 144, 0);
    assert_float_equal(smollm3.score_divisor, 0, 0);
    assert_float_equal(gemma3.embedding_scale, 73.3212f, 1e-4);
    assert_float_equal(smollm3.embedding_scale, 0, 0);
    for (size_t layer = 0; layer < 62; layer++) {
        assert_int_equal(layer_set_has(&gemma3.local, layer), layer % 6 != 5);
        assert_int_equal(layer_set_has(&gemma2.local, layer), layer < 46 && layer % 2 == 0);
        assert_int_equal(layer_set_has(&smollm3.no_rope, layer), layer < 36 && layer % 4 == 3);
    }
    assert_true(layer_set_is_empty(&smollm3.local));
    gemma3.n_layers = 26; /* of another size scores are divided as usual */
    gemma3.score_divisor = 0;
    model_config_complete(&gemma3);
    assert_float_equal(gemma3.score_divisor, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_float64),
        cmocka_unit_test(test_batches_and_threads_change_nothing),
        cmocka_unit_test(test_forward_refuses),
        cmocka_unit_test(test_every_field_has_a_role),
        cmocka_unit_test(test_products_are_uploaded_together),
        cmocka_unit_test(test_configurations_of_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
