/* Matrix products of the CPU backend: prepares activations, and spreads panels of rows over threads.
 *
 *     CpuMatmul matmul;
 *     cpu_matmul_open(&matmul, level, pool);
 *     if (cpu_weights_pack(&matmul.weights, tensors, n, &error) < 0) …
 *     if (cpu_matmul_reserve(&matmul, n_batch, &error) < 0) …        // once all are packed
 *     cpu_matmul_run(&matmul, products, n_products, x, n_tokens);
 *     cpu_matmul_close(&matmul); */
#ifndef STOWKV_CPU_MATMUL_H
#define STOWKV_CPU_MATMUL_H

#include "base/machine/thread_pool.h"
#include "cpu/matmul.h"
#include "cpu/weights.h"
#include "model/backend.h"

typedef struct CpuMatmul {
    const MatmulKernels *kernels;
    ThreadPool *pool;
    CpuWeights weights;
    size_t n_tokens; /* the largest batch that the following suffice for */
    int32_t *strips; /* activations in both forms of matmul.h, for n_tokens of max_columns */
    float *columns;
    uint8_t *scratch; /* (n_threads, scratch_bytes) */
    size_t scratch_bytes;
} CpuMatmul;

void cpu_matmul_open(CpuMatmul *matmul, SimdLevel level, ThreadPool *pool);
void cpu_matmul_close(CpuMatmul *matmul); /* once the pool is closed, whose threads prefetch */

/* Allocates for batches of up to n_tokens, once all weights are packed. ERROR_MEMORY. */
int cpu_matmul_reserve(CpuMatmul *matmul, size_t n_tokens, Error *error);

/* x: (n_tokens, n_columns). All matrices must have that number of columns. */
void cpu_matmul_run(CpuMatmul *matmul, const WeightProduct *products, size_t n_products, const float *x,
                    size_t n_tokens);

#endif
