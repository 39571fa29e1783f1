/* See arithmetic.h. */
#include "eval/bench/arithmetic.h"

#include "base/machine/clock.h"
#include "base/machine/thread_pool.h"
#include "eval/bench/arithmetic_fma.h"

#include <stdatomic.h>
#include <stdbool.h>

#define STEPS  (1 << 14) /* of a piece: with lanes, a sum that F32 holds exactly */
#define PIECES 16        /* of a thread */
#define PASSES 8

typedef struct Arithmetic {
    ArithmeticFma *fma;
    atomic_size_t n_lanes;
    atomic_bool wrong;
} Arithmetic;

static void run_pieces(void *context, size_t begin, size_t end, int thread) {
    Arithmetic *a = context;
    (void)thread;
    for (size_t piece = begin; piece < end; piece++) {
        size_t n_lanes;
        float sum = a->fma(1, 1, STEPS, &n_lanes);
        if (sum != (float)(STEPS * n_lanes))
            atomic_store(&a->wrong, true);
        atomic_store(&a->n_lanes, n_lanes);
    }
}

int arithmetic_measure(int n_threads, SimdLevel level, double *flops_per_second, Error *error) {
    static ArithmeticFma *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_TABLE(arithmetic_fma);
    Arithmetic a = {.fma = KERNELS[level]};
    size_t n_pieces = PIECES * (size_t)n_threads;
    ThreadPool *pool;
    if (thread_pool_open(&pool, n_threads, error) < 0)
        return error->code;
    *flops_per_second = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        double begin = clock_seconds();
        thread_pool_run(pool, n_pieces, 1, run_pieces, &a);
        double rate = 2.0 * (double)(n_pieces * STEPS * a.n_lanes) / (clock_seconds() - begin);
        *flops_per_second = rate > *flops_per_second ? rate : *flops_per_second;
    }
    thread_pool_close(pool);
    return a.wrong
               ? error_set(error, ERROR_FORMAT,
                           "a sum of ones is wrong; this is a bug or a failing processor, and no figure of this run "
                           "can be trusted")
               : 0;
}
