/* Runs of model_run.h on the CUDA backend, its kernels on the host (tests/cuda_shim), and on the CPU's beside it. */
#ifndef STOWKV_CUDA_RUN_H
#define STOWKV_CUDA_RUN_H

#include "tests/model_run.h"

enum { CUDA_RUN_CTX = 160 };

Backend *open_cuda(void);

/* A policy as --kv_policy takes it, but with groups of 32, and keys rounded to nearest, as the GPU's encoders do. */
void cuda_run_open(ModelRun *run, Backend *backend, const char *model, const char *policy, size_t n_batch);

#endif
