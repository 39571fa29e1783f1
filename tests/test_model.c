/* Logits of tiny random models, every tensor type and container, against the float64 forward pass of
 * tests/fixtures/reference_llama.py; and that batches, threads and instruction sets do not change them. */
#include "base/simd/detect.h"
#include "cpu/backend.h"
#include "model/model.h"
#include "model/packed_matrix.h"
#include "tests/fixture_files.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* One fixture: NAME.gguf, NAME.bin or NAME-00001-of-00003.gguf with NAME.tokens and NAME.logits. */
typedef struct Case {
    char path[512];
    int32_t *tokens;
    double *logits; /* (n_tokens, n_vocab) */
    size_t n_tokens;
    bool coded; /* weights in integer codes: set by run_model() */
} Case;

static bool load_case(Case *c, const char *tokens_path) {
    static const char *const SUFFIXES[] = {".gguf", ".bin", "-00001-of-00003.gguf"};
    size_t size, stem = strlen(tokens_path) - strlen(".tokens");
    char logits_path[512];
    FILE *file = NULL;
    for (size_t i = 0; i < 3 && file == NULL; i++) {
        snprintf(c->path, sizeof c->path, "%.*s%s", (int)stem, tokens_path, SUFFIXES[i]);
        file = fopen(c->path, "rb");
    }
    if (file == NULL)
        return false; /* smollm2: its checkpoint is not copied here */
    fclose(file);
    snprintf(logits_path, sizeof logits_path, "%.*s.logits", (int)stem, tokens_path);
    c->tokens = fixture_load(tokens_path, &size);
    c->n_tokens = size / sizeof *c->tokens;
    c->logits = fixture_load(logits_path, &size);
    return true;
}

static void free_case(Case *c) {
    free(c->tokens);
    free(c->logits);
}

/* Runs all tokens in batches of `n_batch` and returns malloc'd logits (n_tokens, n_vocab). */
static float *run_model(Case *c, SimdLevel level, int n_threads, size_t n_batch, size_t *n_vocab) {
    Error error = {0};
    Backend *backend;
    Model model;
    Context context;
    assert_int_equal(cpu_backend_open(&backend, level, n_threads, &error), 0);
    KvPolicy policy = kv_policy_full();
    if (model_open(&model, c->path, backend, &error) < 0 ||
        context_open(&context, &model, &policy, 128, n_batch, &error) < 0)
        fail_msg("%s", error.message);
    *n_vocab = model.checkpoint.config.n_vocab;
    c->coded = packed_is_coded(model.weights.layers[0].ffn_down.type);
    float *logits = malloc(c->n_tokens * *n_vocab * sizeof *logits);
    for (size_t done = 0; done < c->n_tokens;) {
        size_t n = context_batch(&context, c->n_tokens - done);
        if (forward(&context, c->tokens + done, n, LOGITS_ALL, &error) < 0)
            fail_msg("%s: %s", c->path, error.message);
        memcpy(logits + done * *n_vocab, context.logits, n * *n_vocab * sizeof *logits);
        done += n;
    }
    context_close(&context);
    model_close(&model);
    return logits;
}

/* F32 leaves relative errors of some 2e-6 in keys and values. Where one of them crosses the middle between two halves,
 * which are 2^-11 apart, the cache rounds it to the other half than the reference does: 2 * 2e-6 / 2^-11, about 0.8 %
 * of them. All of FP16's rounding together moves these logits by up to 5e-3 of their size (the reference with and
 * without it); 0.8 % of errors that are sqrt(12) times as large as a typical one come to sqrt(0.008 * 12) = 0.3 of
 * that. */
#define MAX_TOLERANCE 3e-3
#define RMS_TOLERANCE 6e-4

/* Coded weights meet activations of 16 bits: a block's largest / 32639 apart, for blocks like Gaussian noise an error
 * of 2.2 / 32639 / sqrt(12) = 2e-5 of their size, which a product keeps. Then 2 * 2e-5 / 2^-10 = 4 % of keys and values
 * cross (their halves are 2^-11 to 2^-10 apart), twice as much error as above: sqrt(0.04 / 0.008). */
#define CODED_FACTOR 2.2

static double check_logits(const Case *c, const float *logits, size_t n_vocab, SimdLevel level) {
    double worst = 0, squares = 0, error_squares = 0;
    size_t n = c->n_tokens * n_vocab;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)logits[i] - c->logits[i]);
        squares += c->logits[i] * c->logits[i];
        error_squares += error * error;
        worst = error <= worst ? worst : error;
    }
    double size = sqrt(squares / (double)n), rms = sqrt(error_squares / (double)n) / size;
    double factor = c->coded ? CODED_FACTOR : 1;
    if (!(worst <= factor * MAX_TOLERANCE * size) || !(rms <= factor * RMS_TOLERANCE))
        fail_msg("%s, %s: logits differ by up to %.3g of their size, rms %.3g", c->path, simd_level_features(level),
                 worst / size, rms);
    return rms;
}

static void test_logits_match_float64(void **state) {
    (void)state;
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/*.tokens", fixture_path("STOWKV_FIXTURES", "models"));
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    size_t n_cases = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        Case c;
        if (!load_case(&c, found.gl_pathv[i]))
            continue;
        double worst = 0;
        for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
            size_t n_vocab;
            float *logits = run_model(&c, level, 2, 0, &n_vocab);
            worst = fmax(worst, check_logits(&c, logits, n_vocab, level));
            free(logits);
        }
        printf("%-60s %.1e\n", strrchr(c.path, '/') + 1, worst);
        free_case(&c);
        n_cases++;
    }
    globfree(&found);
    assert_true(n_cases >= 38);
}

/* Sums have one order whatever the batch, so it is the same to the bit. */
static void check_same(const char *fixture) {
    Case c;
    assert_true(load_case(&c, fixture_path("STOWKV_FIXTURES", fixture)));
    const size_t batches[] = {1, 7, 16, 64};
    for (SimdLevel level = SIMD_SCALAR; level != SIMD_LEVEL_COUNT; level = cpu_next_level(level)) {
        size_t n_vocab;
        float *whole = run_model(&c, level, 1, 0, &n_vocab);
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
            for (int n_threads = 1; n_threads <= 3; n_threads++) {
                float *logits = run_model(&c, level, n_threads, batches[i], &n_vocab);
                assert_memory_equal(logits, whole, c.n_tokens * n_vocab * sizeof *logits);
                free(logits);
            }
        free(whole);
    }
    free_case(&c);
}

static void test_batches_and_threads_change_nothing(void **state) {
    (void)state;
    check_same("models/q4_1.tokens");
    check_same("models/q6_k.tokens");
    check_same("models/head_dim_48.tokens");
    check_same("models/llama2c_v2_untied_32.tokens");
    check_same("models/qwen2_q8_0.tokens");
}

static void test_forward_refuses(void **state) {
    (void)state;
    Case c;
    assert_true(load_case(&c, fixture_path("STOWKV_FIXTURES", "models/f32.tokens")));
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
    free_case(&c);
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

static void record_matmul(Backend *backend, const WeightProduct *products, size_t n, const float *x, size_t n_tokens) {
    for (size_t i = 0; i < n; i++)
        record(&multiplied, products[i].w, products[i].bias);
    multiplied.n_calls++;
    recorded_ops->matmul(backend, products, n, x, n_tokens);
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
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_match_float64),
        cmocka_unit_test(test_batches_and_threads_change_nothing),
        cmocka_unit_test(test_forward_refuses),
        cmocka_unit_test(test_every_field_has_a_role),
        cmocka_unit_test(test_products_are_uploaded_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
