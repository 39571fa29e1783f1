/* The fixtures' model of F32 weights on the CPU, and tokens for it: opened once for all tests of a program.
 *
 *     cmocka_run_group_tests(tests, tiny_model_open, tiny_model_close);
 *     Context context;
 *     tiny_model_context(&context, "sink=4,f16:32,int8:*", 320, 0);
 *     forward(&context, tiny_tokens, 20, LOGITS_ALL, &error);
 *     context_close(&context);
 */
#ifndef STOWKV_TINY_MODEL_H
#define STOWKV_TINY_MODEL_H

#include "tests/model_run.h"

enum { TINY_TOKENS = 300, TINY_VOCAB = 96 };

extern Model tiny_model;
extern int32_t tiny_tokens[TINY_TOKENS]; /* random, the same in each run */

int tiny_model_open(void **state);
int tiny_model_close(void **state);

/* `policy`: as --kv_policy takes it. */
void tiny_model_context(Context *context, const char *policy, size_t n_ctx, size_t n_batch);

#endif
