/* The tiny random models of the fixtures, of every tensor type and container, with logits of the float64 forward pass
 * of tests/fixtures/reference_llama.py.
 *
 *     ModelCase c;
 *     if (model_case_load(&c, fixture_path("STOWKV_FIXTURES", "models/f32.tokens"))) …
 *     float *logits = model_case_run(&c, backend, 0, &n_vocab);
 *     model_case_check(&c, logits, n_vocab, ROUNDS_CODED_TO_INT16, "avx2");
 *     model_case_free(&c);
 */
#ifndef STOWKV_MODEL_CASES_H
#define STOWKV_MODEL_CASES_H

#include "model/model.h"

/* NAME.gguf, NAME.bin or NAME-00001-of-00003.gguf with NAME.tokens and NAME.logits. */
typedef struct ModelCase {
    char path[512];
    int32_t *tokens;
    double *logits; /* (n_tokens, n_vocab) */
    size_t n_tokens;
    bool coded; /* weights in integer codes: set by model_case_run() */
} ModelCase;

/* false where the checkpoint is not there: smollm2's is not copied to the fixtures. */
bool model_case_load(ModelCase *c, const char *tokens_path);
void model_case_free(ModelCase *c);

/* Calls `check` with every case; returns how many there are. */
size_t model_cases_each(void (*check)(ModelCase *c));

/* Runs all tokens in batches of n_batch (0: the default) and returns malloc'd logits (n_tokens, n_vocab). Closes the
 * backend. */
float *model_case_run(ModelCase *c, Backend *backend, size_t n_batch, size_t *n_vocab);

/* What is rounded beyond F32. */
typedef enum ModelRounding {
    ROUNDS_NOTHING,
    ROUNDS_CODED_TO_INT16,      /* activations, where weights are codes */
    ROUNDS_ATTENTION_TO_HALVES, /* queries, and attention's weights */
    ROUNDS_TO_HALVES            /* activations and weights too */
} ModelRounding;

/* Fails where logits differ from the reference by more than F32, the cache's FP16 and the rounding explain. Returns the
 * relative root of the mean square. */
double model_case_check(const ModelCase *c, const float *logits, size_t n_vocab, ModelRounding rounding,
                        const char *kernels);

#endif
