/* The CPU backend's weights: packs matrices at load, and prefetches those that come next.
 *
 *     CpuWeights weights;
 *     cpu_weights_open(&weights, pool);
 *     if (cpu_weights_pack(&weights, tensors, n, &error) < 0) …      // sets their `uploaded`
 *     if (cpu_weights_ready(&weights, &error) < 0) …                 // once all are packed
 *     cpu_weights_begin(&weights, tensors[0]->uploaded);             // these are about to be read
 *     cpu_weights_close(&weights);
 *
 * Matrices of one product are packed together, in the order in which products are computed: they lie in memory one
 * behind the other, and threads share out their panels as one run of indices. Where memory is near some threads and far
 * from others, each thread's share lies near that thread; and while one thread works alone between two products, the
 * others prefetch the beginning of their shares of the next. */
#ifndef STOWKV_CPU_WEIGHTS_H
#define STOWKV_CPU_WEIGHTS_H

#include "base/machine/thread_pool.h"
#include "cpu/weight_store.h"
#include "model/packed_matrix.h"

#include <stdatomic.h>

/* Matrices of one product. */
typedef struct ProductWeights {
    size_t first, n_matrices; /* in CpuWeights.matrices */
    size_t n_panels;          /* that hold rows, of all of them */
} ProductWeights;

/* What a thread prefetches while it has no work. */
typedef struct WeightsAhead {
    _Alignas(64) uint64_t next; /* CpuWeights.next, when the rest was set */
    const uint8_t *at, *end;
} WeightsAhead;

typedef struct CpuWeights {
    ThreadPool *pool;
    WeightStore store;
    PackedMatrix **matrices;  /* (n_matrices) owned; their data is in `store` */
    ProductWeights *products; /* (n_products) owned, in the order of their use */
    size_t n_matrices, n_products;
    size_t max_columns;     /* of all matrices */
    WeightsAhead *ahead;    /* (n_threads) owned */
    size_t current;         /* product that was begun last */
    _Atomic(uint64_t) next; /* how many were begun << 32 | the product that comes next */
} CpuWeights;

/* Panels that hold rows. */
static inline size_t weight_panels(const PackedMatrix *w) {
    return (w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* The part of [begin, end) that is in [first, first + n), counted from first; empty where to <= from. */
typedef struct WeightPart {
    size_t from, to;
} WeightPart;

static inline WeightPart weight_part(size_t begin, size_t end, size_t first, size_t n) {
    size_t left = end > first ? end - first : 0;
    return (WeightPart){begin > first ? begin - first : 0, left < n ? left : n};
}

void cpu_weights_open(CpuWeights *weights, ThreadPool *pool);
void cpu_weights_close(CpuWeights *weights); /* once the pool is closed, whose threads prefetch */

/* Packs the matrices of one product, in its order, and sets their `uploaded`, which `weights` owns. ERROR_MEMORY. */
int cpu_weights_pack(CpuWeights *weights, Tensor *const *tensors, size_t n_tensors, Error *error);

/* From now on threads of the pool that wait for work prefetch weights. Calling it again is fine. */
int cpu_weights_ready(CpuWeights *weights, Error *error);

/* To be called before the product that begins with this matrix. */
void cpu_weights_begin(CpuWeights *weights, const PackedMatrix *first);

#endif
