/* What calibration measures: errors of layers against sums in double over the outputs of attention in caches that have
 * the policy in one layer alone, and harms against divergences of such caches. */
#include "eval/calibrate/layer_errors.h"
#include "eval/calibrate/measure.h"
#include "tests/evaluation_fixture.h"
#include "tests/model_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Of f32.gguf, all of whose tensors are F32. */
enum { N_LAYERS = 2, N_EMBD = 256, N_ATTENDED = 256, FIRST = 20, N_BATCH = 50 };

static void open_model(Model *model, const char *name) {
    char file[64];
    snprintf(file, sizeof file, "models/%s.gguf", name);
    fixture_model_open(model, file, open_cpu(2));
}

static void read_window(Context *context) {
    Error error = {0};
    for (size_t done = 0, n; done < RUN_WINDOW; done += n) {
        n = context_batch(context, RUN_WINDOW - done);
        if (forward(context, random_windows() + done, n, LOGITS_NONE, &error) < 0)
            fail_msg("%s", error.message);
    }
}

/* ---- Errors */

/* What goes by in one layer. */
typedef struct Record {
    Context *context;
    size_t layer;
    float x[RUN_WINDOW][N_EMBD], attended[RUN_WINDOW][N_ATTENDED];
} Record;

static void watch(void *user, size_t layer, size_t n_tokens) {
    Record *r = user;
    size_t at = r->context->cache.n_tokens;
    if (layer != r->layer)
        return;
    memcpy(r->x[at], r->context->x, n_tokens * sizeof *r->x); /* the CPU's memory is the host's */
    memcpy(r->attended[at], r->context->attended, n_tokens * sizeof *r->attended);
}

static void record_layer(Model *model, const KvPolicy *policy, size_t layer, Record *out) {
    Context context;
    Error error = {0};
    if (context_open(&context, model, policy, RUN_WINDOW, N_BATCH, &error) < 0)
        fail_msg("%s", error.message);
    *out = (Record){.context = &context, .layer = layer};
    context.on_attended = watch;
    context.on_attended_user = out;
    read_window(&context);
    context_close(&context);
}

static double expected_error(const Tensor *projection, const Record *rounded, const Record *exact) {
    const float *w = (const float *)projection->data; /* (N_EMBD, N_ATTENDED) */
    double sum = 0;
    for (size_t t = FIRST; t < RUN_WINDOW; t++) {
        double error = 0, size = 0;
        for (size_t i = 0; i < N_EMBD; i++) {
            double y = 0;
            for (size_t j = 0; j < N_ATTENDED; j++)
                y += (double)w[i * N_ATTENDED + j] * ((double)rounded->attended[t][j] - (double)exact->attended[t][j]);
            error += y * y;
            size += (double)exact->x[t][i] * (double)exact->x[t][i];
        }
        sum += error / size;
    }
    return sum;
}

static void test_errors_of_layers(void **state) {
    (void)state;
    static const char *const POLICIES[] = {"sink=4,f16:0,int4/f16:*", "rotate=on,sink=4,f16:10,f16/int2:*"};
    static Record rounded, exact;
    Model model;
    Context context;
    LayerErrors *errors;
    Error error = {0};
    open_model(&model, "f32");
    const KvPolicy full = kv_policy_full(), policies[] = {policy_of(POLICIES[0]), policy_of(POLICIES[1])};
    if (context_open(&context, &model, &full, RUN_WINDOW, N_BATCH, &error) < 0 ||
        layer_errors_open(&errors, &context, policies, 2, FIRST, &error) < 0)
        fail_msg("%s", error.message);
    layer_errors_begin(errors);
    read_window(&context);
    for (size_t layer = 0; layer < N_LAYERS; layer++)
        for (size_t p = 0; p < 2; p++) {
            KvPolicy alone = policies[p];
            char name[64];
            alone.rules[0].first_layer = alone.rules[0].last_layer = layer;
            alone.rules[alone.n_rules++] = full.rules[0];
            snprintf(name, sizeof name, "blk.%zu.attn_output.weight", layer);
            record_layer(&model, &full, layer, &exact);
            record_layer(&model, &alone, layer, &rounded);
            double expected = expected_error(checkpoint_tensor(&model.checkpoint, name), &rounded, &exact);
            double actual = layer_error(errors, p, layer);
            if (!(expected > 0 && fabs(actual - expected) <= 1e-3 * expected))
                fail_msg("%s in layer %zu: %.6g, expected %.6g", POLICIES[p], layer, actual, expected);
        }
    double once = layer_error(errors, 0, 1);
    context_clear(&context);
    layer_errors_begin(errors);
    read_window(&context); /* windows add up */
    assert_true(fabs(layer_error(errors, 0, 1) - 2 * once) <= 1e-12 * once);
    layer_errors_close(errors);
    assert_null(context.on_attended);
    context_close(&context);
    model_close(&model);
}

/* ---- Harms */

static double divergence_of(const char *policy) {
    TestRun run;
    test_run(&run, &(RunOptions){.model = "models/f32.gguf",
                                 .tokens = random_windows(),
                                 .n_tokens = 2 * RUN_WINDOW,
                                 .settings = {.definition = PPL_LLAMACPP, .context = RUN_WINDOW},
                                 .divergence = true,
                                 .policies = {"block=32,f16:*", policy}});
    double mean = mean_error(run.e.modes[1].kld, run.e.n_scored).mean;
    test_run_close(&run);
    return mean;
}

static void measure(const char *name, const volatile sig_atomic_t *interrupted, Calibration *out, int expected) {
    Model model;
    Error error = {0};
    open_model(&model, name);
    CalibrationTask task = {.model = &model,
                            .tokens = random_windows(),
                            .n_tokens = 2 * RUN_WINDOW,
                            .bos = -1,
                            .windows = {PPL_LLAMACPP, RUN_WINDOW, RUN_WINDOW, 0},
                            .preset = kv_policy_quantized(4, 10, KV_INT8, KV_INT8),
                            .interrupted = interrupted};
    task.preset.group = 32;
    if (calibration_measure(&task, out, &error) != expected)
        fail_msg("%s", error.message);
    model_close(&model);
}

/* int3 is the reference: its harms are the divergences themselves. The others stand in the ratio of errors, for which
 * those above hold. */
static void test_harms(void **state) {
    (void)state;
    Calibration c;
    char policy[128];
    measure("f32", NULL, &c, 0);
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (size_t layer = 0; layer < N_LAYERS; layer++) {
            snprintf(policy, sizeof policy, "rotate=on,block=32,@%zu:sink=4,f16:10,%s:*;@*:f16:*", layer,
                     side == KV_KEYS ? "int3/f16" : "f16/int3");
            double expected = divergence_of(policy), actual = c.harms.of[side][1][KV_INT3][layer];
            if (!(expected > 0 && fabs(actual - expected) <= 1e-9 * expected))
                fail_msg("%s: %.9g, expected %.9g", policy, actual, expected);
        }
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (int rotated = 0; rotated < 2; rotated++)
            for (size_t layer = 0; layer < N_LAYERS; layer++) {
                const KvHarms *h = &c.harms;
                assert_true(h->of[side][rotated][KV_INT2][layer] > h->of[side][rotated][KV_INT4][layer]);
                assert_true(h->of[side][rotated][KV_INT4][layer] > h->of[side][rotated][KV_INT8][layer]);
                assert_true(h->of[side][rotated][KV_INT8][layer] > 0);
            }
    assert_null(c.harms.of[KV_KEYS][0][KV_F16]);
    assert_null(c.harms.of[KV_KEYS][0][KV_BINARY]);
    assert_int_equal(c.group, 32);
    calibration_free(&c);
}

/* Of seven layers six see nine tokens, fewer than the window has: nothing is encoded there, and nothing harmed. */
static void test_local_layers(void **state) {
    (void)state;
    Calibration c;
    measure("gemma3_f32", NULL, &c, 0);
    assert_int_equal(c.harms.n_layers, 7);
    for (KvSide side = 0; side < KV_SIDES; side++)
        for (size_t layer = 0; layer < 7; layer++) {
            double harm = c.harms.of[side][1][KV_INT3][layer];
            assert_true(layer == 5 ? harm > 0 : harm == 0);
        }
    calibration_free(&c);
}

static void test_interruption(void **state) {
    (void)state;
    const volatile sig_atomic_t interrupted = 1;
    Calibration c;
    measure("f32", &interrupted, &c, ERROR_INTERRUPTED);
}

/* ---- Fingerprints */

static uint64_t fingerprint_of(const char *name) {
    Model model;
    open_model(&model, name);
    uint64_t fingerprint = calibration_fingerprint(&model.checkpoint);
    model_close(&model);
    return fingerprint;
}

/* The fixtures are models of different random weights. */
static void test_fingerprints(void **state) {
    (void)state;
    static const char *const MODELS[] = {"f32", "four_layers", "head_dim_16", "key_length", "gemma3_f32", "qwen2_f32"};
    const size_t n = sizeof MODELS / sizeof *MODELS;
    for (size_t i = 0; i < n; i++) {
        assert_true(fingerprint_of(MODELS[i]) == fingerprint_of(MODELS[i]));
        for (size_t j = 0; j < i; j++)
            if (fingerprint_of(MODELS[i]) == fingerprint_of(MODELS[j]))
                fail_msg("%s and %s have one fingerprint", MODELS[i], MODELS[j]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_of_layers), cmocka_unit_test(test_harms),
        cmocka_unit_test(test_local_layers),     cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_fingerprints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
