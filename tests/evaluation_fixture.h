/* Evaluations of small models, for the tests of eval/: model, windows and policies from their texts.
 *
 *     TestRun run;
 *     test_run(&run, &(RunOptions){.model = "models/f32.gguf", .tokens = ids, .n_tokens = 480,
 *                                  .settings = {PPL_GPTQ, 240}, .policies = {"f16:*", "f16:32,int8:*"}});
 *     … run.e.modes[1].nll …
 *     test_run_close(&run);
 */
#ifndef STOWKV_EVALUATION_FIXTURE_H
#define STOWKV_EVALUATION_FIXTURE_H

#include "eval/perplexity/evaluation.h"

#define RUN_MAX_POLICIES 16

typedef struct RunOptions {
    const char *model; /* a file of STOWKV_FIXTURES, or a path that begins with "/" */
    const int32_t *tokens;
    size_t n_tokens;
    PplSettings settings; /* a stride of 0 is the context */
    size_t n_batch;
    int n_threads;    /* 0: two */
    Backend *backend; /* becomes the run's; NULL: the CPU's */
    int32_t bos;      /* 0: none */
    bool divergence, attribution;
    const char *save_base, *load_base;
    const char *policies[RUN_MAX_POLICIES]; /* as --kv_policy takes them, NULL at the end */
} RunOptions;

typedef struct TestRun {
    Model model;
    Evaluation e;
} TestRun;

/* Opens the evaluation; where it is refused, everything is closed again. Any other failure fails the test. */
int test_run_open(TestRun *run, const RunOptions *options, Error *error);

/* Opens and runs it, or fails the test. */
void test_run(TestRun *run, const RunOptions *options);
void test_run_close(TestRun *run);

/* cache/tokens of the fixtures: two windows of RUN_WINDOW random tokens. They live until the program ends. */
#define RUN_WINDOW 240
const int32_t *random_windows(void);

/* n_tokens of STOWKV_DATA's wiki.test.raw by the tokenizer of stories260K, malloc'd; skips the test where either is not
 * there. */
int32_t *wiki_tokens_of_stories(size_t n_tokens);

#endif
