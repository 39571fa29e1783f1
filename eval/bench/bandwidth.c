/* See bandwidth.h. */
#include "eval/bench/bandwidth.h"

#include "base/checked.h"
#include "base/machine/clock.h"
#include "base/machine/pages.h"
#include "base/machine/thread_pool.h"
#include "eval/bench/bandwidth_sum.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

/* ---- The machine */

/* Reads the number that a small file of the kernel's begins with. */
static bool read_number(const char *path, size_t *out) {
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    bool found = fscanf(file, "%zu", out) == 1;
    fclose(file);
    return found;
}

/* Bytes of a processor's cache `index` if it is of the highest level and this processor is the first that shares it,
 * so that each cache counts once. Raises *level. */
static size_t cache_of_cpu(size_t cpu, int index, size_t *level) {
    char path[128];
    size_t own_level, first, kib;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/level", cpu, index);
    if (!read_number(path, &own_level) || own_level < *level)
        return 0;
    *level = own_level;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/shared_cpu_list", cpu, index);
    if (!read_number(path, &first) || first != cpu)
        return 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/size", cpu, index);
    return read_number(path, &kib) ? kib * 1024 : 0; /* "32768K" */
}

static size_t last_level_caches(void) {
    size_t sum = 0, level = 0;
    long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (size_t cpu = 0; (long)cpu < n_cpus; cpu++)
        for (int index = 0; index < 8; index++) {
            size_t before = level, bytes = cache_of_cpu(cpu, index, &level);
            sum = level > before ? bytes : sum + bytes;
        }
    return sum;
}

/* What can be taken without swapping, and within a container's limit. */
static size_t available_memory(void) {
    size_t available = (size_t)sysconf(_SC_PHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE), limit, used;
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        size_t kib;
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1)
            available = kib * 1024;
    }
    if (file != NULL)
        fclose(file);
    if (read_number("/sys/fs/cgroup/memory.max", &limit) && read_number("/sys/fs/cgroup/memory.current", &used))
        available = at_most(limit > used ? limit - used : 0, available);
    return available;
}

static size_t choose_pieces(size_t cache_bytes) {
    size_t wanted = CACHE_TIMES * cache_bytes / MIB, most = available_memory() / 4 / MIB;
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
    *out = (Bandwidth){.n_threads = n_threads, .cache_bytes = last_level_caches()};
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
