/* Matrix products of the CPU backend: packs weights at load, and spreads panels of rows over threads.
 *
 *     CpuMatmul matmul;
 *     cpu_matmul_open(&matmul, level, pool);
 *     if (cpu_matmul_pack(&matmul, tensors, n, &error) < 0) …      // their `uploaded` are their packed forms
 *     if (cpu_matmul_reserve(&matmul, n_batch, &error) < 0) …      // once all are packed
 *     cpu_matmul_run(&matmul, products, n_products, x, n_tokens);
 *     cpu_matmul_close(&matmul);
 *
 * Matrices should be packed in the order in which they are used: they lie in memory one behind the other, and while one
 * thread works alone between two products, the others already ask for the weights that come next. Those of one product
 * are packed together: where memory is near some threads and far from others, each thread's run of their panels lies
 * near it. */
#ifndef STOWKV_CPU_MATMUL_H
#define STOWKV_CPU_MATMUL_H

#include "model/backend.h"
#include "model/base/thread_pool.h"
#include "model/matmul.h"
#include "model/weight_store.h"

#include <stdatomic.h>

typedef struct CpuMatmul {
    const MatmulKernels *kernels;
    ThreadPool *pool;
    WeightStore weights;
    PackedMatrix **matrices; /* (n_matrices) owned; their data is in `weights` */
    size_t n_matrices;
    size_t max_columns; /* of the matrices that were packed */
    size_t n_tokens;    /* that there is room for */
    int32_t *tiles;     /* activations in both forms of matmul.h, for n_tokens of max_columns */
    float *columns;
    uint8_t *rooms; /* (n_threads, room_bytes) */
    size_t room_bytes;
    _Atomic(const uint8_t *) next; /* weights that idle threads ask for, up to `next_end`; NULL: none */
    _Atomic(const uint8_t *) next_end;
} CpuMatmul;

void cpu_matmul_open(CpuMatmul *matmul, SimdLevel level, ThreadPool *pool);
void cpu_matmul_close(CpuMatmul *matmul);

int cpu_matmul_pack(CpuMatmul *matmul, Tensor *const *tensors, size_t n_tensors, Error *error);
int cpu_matmul_reserve(CpuMatmul *matmul, size_t n_tokens, Error *error);

/* The products must have one number of columns. */
void cpu_matmul_run(CpuMatmul *matmul, const WeightProduct *products, size_t n_products, const float *x,
                    size_t n_tokens);

#endif
