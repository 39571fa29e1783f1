/* See bandwidth.h. */
#include "eval/bench/bandwidth.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "base/machine/memory.h"
#include "base/machine/pages.h"
#include "base/machine/thread_pool.h"
#include "eval/bench/bandwidth_sum.h"

#include <stdatomic.h>
#include <stdbool.h>

#define MIB          ((size_t)1 << 20)
#define PIECE_FLOATS (MIB / sizeof(float)) /* ones; their sum is exact in F32 */
#define CACHE_TIMES  4
#define SMALLEST_MIB 256
#define MIN_PASSES   4
#define SECONDS      0.1 /* of passes by all threads; by one, a quarter of it */

typedef struct Reading {
    float *buffer; /* (n_pieces, PIECE_FLOATS), all 1 */
    size_t n_pieces;
    BandwidthSum *sum;
    atomic_bool wrong; /* a sum was not what it must be */
} Reading;

static size_t choose_pieces(size_t cache_bytes) {
    size_t wanted = CACHE_TIMES * cache_bytes / MIB, most = memory_available() / 4 / MIB;
    return at_least(at_most(at_least(wanted, SMALLEST_MIB), most), 1);
}

/* ---- Reading */

static void fill_pieces(void *context, size_t begin, size_t end, int thread) {
    const Reading *r = context;
    (void)thread;
    for (size_t i = begin * PIECE_FLOATS; i < end * PIECE_FLOATS; i++)
        r->buffer[i] = 1;
}

static void sum_pieces(void *context, size_t begin, size_t end, int thread) {
    Reading *r = context;
    (void)thread;
    for (size_t piece = begin; piece < end; piece++)
        if (r->sum(r->buffer + piece * PIECE_FLOATS, PIECE_FLOATS) != (float)PIECE_FLOATS)
            atomic_store(&r->wrong, true);
}

/* Bytes a second of the best pass of those that are begun within some seconds, after one that is not timed. */
static int time_passes(Reading *r, int n_threads, double budget, double *best, Error *error) {
    ThreadPool *pool;
    if (thread_pool_open(&pool, n_threads, error) < 0)
        return error->code;
    thread_pool_run(pool, r->n_pieces, 1, sum_pieces, r);
    double begin = clock_seconds(), before = begin;
    *best = 0;
    for (size_t n = 0; n < MIN_PASSES || before - begin < budget; n++) {
        thread_pool_run(pool, r->n_pieces, 1, sum_pieces, r);
        double now = clock_seconds(), rate = (double)(r->n_pieces * MIB) / (now - before);
        *best = rate > *best ? rate : *best;
        before = now;
    }
    thread_pool_close(pool);
    return 0;
}

/* Written by the threads that will read it, so that on machines with several memories it lies near them. */
static int fill_buffer(Reading *r, int n_threads, Error *error) {
    ThreadPool *pool;
    if (thread_pool_open(&pool, n_threads, error) < 0)
        return error->code;
    thread_pool_each(pool, r->n_pieces, fill_pieces, r);
    thread_pool_close(pool);
    return 0;
}

static int measure(Reading *r, Bandwidth *out, Error *error) {
    if (fill_buffer(r, out->n_threads, error) < 0 ||
        time_passes(r, out->n_threads, SECONDS, &out->all_threads, error) < 0 ||
        time_passes(r, 1, SECONDS / 4, &out->one_thread, error) < 0)
        return error->code;
    if (r->wrong)
        return error_set(
            error, ERROR_FORMAT,
            "the sum over a buffer of ones is wrong; this is a bug or failing memory, and no figure of this "
            "run can be trusted");
    return 0;
}

int bandwidth_measure(int n_threads, SimdLevel level, Bandwidth *out, Error *error) {
    static BandwidthSum *const SUMS[SIMD_LEVEL_COUNT] = SIMD_TABLE(bandwidth_sum);
    *out = (Bandwidth){.n_threads = n_threads, .cache_bytes = memory_cache_bytes()};
    Reading reading = {.n_pieces = choose_pieces(out->cache_bytes), .sum = SUMS[level]};
    out->buffer_bytes = reading.n_pieces * MIB;
    void *memory = mmap(NULL, out->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_memory(error, "the buffer of the bandwidth measurement", out->buffer_bytes);
    pages_ask(memory, out->buffer_bytes, PAGES_HUGE); /* as for weights */
    reading.buffer = memory;
    int status = measure(&reading, out, error);
    munmap(memory, out->buffer_bytes);
    return status;
}
