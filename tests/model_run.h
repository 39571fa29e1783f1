/* A model of the fixtures with a cache policy, on any backend. What cannot be opened fails the test.
 *
 *     ModelRun run;
 *     KvPolicy policy = policy_of("sink=4,f16:16,int8:*");
 *     model_run_open(&run, open_cpu(1), "models/f32.gguf", &policy, 160, 0);
 *     model_run_step(&run, tokens, 20);                        // run.context.logits
 *     model_run_close(&run);
 */
#ifndef STOWKV_MODEL_RUN_H
#define STOWKV_MODEL_RUN_H

#include "model/model.h"

/* With the best instruction set that runs. */
Backend *open_cpu(int n_threads);

/* As --kv_policy takes it, of groups of 64 where it does not say. */
KvPolicy policy_of(const char *text);

/* `name`: a file of STOWKV_FIXTURES. The model owns the backend. */
void fixture_model_open(Model *model, const char *name, Backend *backend);

typedef struct ModelRun {
    Model model;
    Context context;
} ModelRun;

/* n_batch 0: the default. */
void model_run_open(ModelRun *run, Backend *backend, const char *model, const KvPolicy *policy, size_t n_ctx,
                    size_t n_batch);
void model_run_close(ModelRun *run);

/* The next tokens, with logits of the last. */
void model_run_step(ModelRun *run, const int32_t *tokens, size_t n);

/* The first of the largest, as the sampler's rule has it. */
int32_t most_likely(const float *logits, size_t n);

#endif
