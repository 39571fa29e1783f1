/* A model of the fixtures with a cache policy, on the CUDA backend whose kernels run on the host (tests/cuda_shim), or
 * on the CPU's for comparison.
 *
 *     CudaRun run;
 *     cuda_run_open(&run, open_cuda(), "models/f32.gguf", "sink=4,f16:16,int8:*", 0);
 *     cuda_run_step(&run, tokens, 20);                        // run.context.logits
 *     cuda_run_close(&run);
 */
#ifndef STOWKV_CUDA_RUN_H
#define STOWKV_CUDA_RUN_H

#include "model/model.h"

enum { CUDA_RUN_CTX = 160 };

Backend *open_cuda(void);
Backend *open_cpu(void);

typedef struct CudaRun {
    Model model;
    Context context;
} CudaRun;

/* Fails the test where it cannot be opened. Groups of 32, keys rounded to nearest as the GPU's encoders do; n_batch 0:
 * the default. Owns the backend. */
void cuda_run_open(CudaRun *run, Backend *backend, const char *model, const char *policy, size_t n_batch);
void cuda_run_close(CudaRun *run);

/* The next tokens, with logits of the last, or the test fails. */
void cuda_run_step(CudaRun *run, const int32_t *tokens, size_t n);

#endif
