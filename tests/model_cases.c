/* See model_cases.h. */
#include "tests/model_cases.h"

#include "model/packed_matrix.h"
#include "tests/fixture_files.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

bool model_case_load(ModelCase *c, const char *tokens_path) {
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

void model_case_free(ModelCase *c) {
    free(c->tokens);
    free(c->logits);
}

float *model_case_run(ModelCase *c, Backend *backend, size_t n_batch, size_t *n_vocab) {
    Error error = {0};
    Model model;
    Context context;
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

/* On the CPU coded weights meet activations of 16 bits: a block's largest / 32639 apart, for blocks like Gaussian noise
 * an error of 2.2 / 32639 / sqrt(12) = 2e-5 of their size, which a product keeps. Then 2 * 2e-5 / 2^-10 = 4 % of keys
 * and values cross (their halves are 2^-11 to 2^-10 apart), twice as much error as above: sqrt(0.04 / 0.008). */
#define CODED_FACTOR 2.2

/* A half is off by 2^-11 / sqrt(3) * 0.74 = 2.1e-4 of its number in the mean square, so that products of halves are off
 * by 3e-4. Two layers and the logits are a chain of 15 products: sqrt(15) * 3e-4 = 1.1e-3, where errors just add up.
 * They grow where scores are large, for softmax takes differences for ratios; as much as in the cache, whose 2.1e-4 in
 * keys and values move these logits by up to 5e-3. */
#define HALVES_FACTOR 10

/* Where queries and attention's weights alone are halves, their errors are as many and as large as those of keys and
 * values, of which the reference has the same: sqrt(2) * 2.1e-4 a layer. */
#define ATTENTION_HALVES_FACTOR 3

static double factor(const ModelCase *c, ModelRounding rounding) {
    switch (rounding) {
    case ROUNDS_NOTHING:
        break;
    case ROUNDS_CODED_TO_INT16:
        return c->coded ? CODED_FACTOR : 1;
    case ROUNDS_ATTENTION_TO_HALVES:
        return ATTENTION_HALVES_FACTOR;
    case ROUNDS_TO_HALVES:
        return HALVES_FACTOR;
    }
    return 1;
}

double model_case_check(const ModelCase *c, const float *logits, size_t n_vocab, ModelRounding rounding,
                        const char *kernels) {
    double worst = 0, squares = 0, error_squares = 0;
    size_t n = c->n_tokens * n_vocab;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)logits[i] - c->logits[i]);
        squares += c->logits[i] * c->logits[i];
        error_squares += error * error;
        worst = error <= worst ? worst : error;
    }
    double size = sqrt(squares / (double)n), rms = sqrt(error_squares / (double)n) / size;
    double allowed = factor(c, rounding);
    if (!(worst <= allowed * MAX_TOLERANCE * size) || !(rms <= allowed * RMS_TOLERANCE))
        fail_msg("%s, %s: logits differ by up to %.3g of their size, rms %.3g", c->path, kernels, worst / size, rms);
    return rms;
}

size_t model_cases_each(void (*check)(ModelCase *c)) {
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/*.tokens", fixture_path("STOWKV_FIXTURES", "models"));
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    size_t n_cases = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        ModelCase c;
        if (!model_case_load(&c, found.gl_pathv[i]))
            continue;
        check(&c);
        model_case_free(&c);
        n_cases++;
    }
    globfree(&found);
    return n_cases;
}
