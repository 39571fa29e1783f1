/* Each thread has a share of the loop, a run of indices, and claims pieces of it from one atomic word: the loop's
 * number above, the next index below. A thread that is through with its own share claims from the others'. A thread
 * reads the loop's description and then claims; if it succeeds, the loop was still that one and had work left, so the
 * caller is still inside thread_pool_run() and the description was the right one. Between loops the next indices are
 * beyond any loop's end, so that a description that is being written cannot be claimed from. See thread_pool.h. */
#define _GNU_SOURCE
#include "base/machine/thread_pool.h"

#include "base/machine/cpu_nodes.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* How often a worker looks for new work before it sleeps: for longer than the pauses between the steps of a layer. */
#define SPINS 2000

#define NO_INDEX UINT32_MAX /* between loops */

/* How much of a share is claimed at once. */
typedef enum Claiming {
    CLAIM_GRAINS,
    CLAIM_HALVES, /* half of what is left, at least a grain */
    CLAIM_OWN     /* all of one's own share, and nothing of others' */
} Claiming;

/* What is left of a thread's share, in a cache line of its own. */
typedef struct Share {
    _Alignas(64) _Atomic(uint64_t) claim; /* loop << 32 | next index */
} Share;

struct ThreadPool {
    int n_threads;
    int n_workers;          /* that have started */
    pthread_t *threads;     /* (n_threads - 1) workers */
    Share *shares;          /* (n_threads) */
    _Atomic(uint64_t) loop; /* number of the last loop that began */
    atomic_size_t n_done;   /* indices of the loop that are finished */
    _Atomic(ThreadTask *) task;
    _Atomic(void *) context;
    atomic_size_t n, grain;
    _Atomic(Claiming) claiming;
    _Atomic(ThreadIdle *) idle; /* may be NULL */
    void *idle_context;
    atomic_int n_sleeping;
    atomic_bool closing;
    pthread_mutex_t mutex; /* for sleeping alone */
    pthread_cond_t work;
    CpuNodes nodes;
    cpu_set_t callers_cpus; /* before bind_caller() */
};

typedef struct Worker {
    ThreadPool *pool;
    int thread;
} Worker;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void idle_briefly(ThreadPool *pool, int thread) {
    ThreadIdle *idle = atomic_load(&pool->idle);
    if (idle != NULL)
        idle(pool->idle_context, thread);
    pause_briefly();
}

size_t thread_pool_share_begin(const ThreadPool *pool, size_t n, int thread) {
    return n * (size_t)thread / (size_t)pool->n_threads;
}

static size_t piece_size(Claiming claiming, size_t left, size_t grain) {
    size_t piece = claiming == CLAIM_HALVES && left / 2 > grain ? left / 2 : grain;
    return claiming == CLAIM_OWN || left < piece ? left : piece;
}

/* Claims pieces of one thread's share of whatever loop is running and does them, until it has none left. */
static void work_on_share(ThreadPool *pool, int owner, int thread) {
    _Atomic(uint64_t) *share = &pool->shares[owner].claim;
    uint64_t claim = atomic_load(share);
    for (;;) {
        ThreadTask *task = atomic_load(&pool->task);
        void *context = atomic_load(&pool->context);
        size_t n = atomic_load(&pool->n), grain = atomic_load(&pool->grain), begin = claim & UINT32_MAX;
        Claiming claiming = atomic_load(&pool->claiming);
        size_t limit = thread_pool_share_begin(pool, n, owner + 1);
        if (begin >= limit || (claiming == CLAIM_OWN && owner != thread)) {
            uint64_t now = atomic_load(share);
            if (now == claim)
                return;
            claim = now; /* another loop began while this one was read */
            continue;
        }
        size_t end = begin + piece_size(claiming, limit - begin, grain);
        if (!atomic_compare_exchange_weak(share, &claim, claim + (end - begin)))
            continue;
        task(context, begin, end, thread);
        atomic_fetch_add(&pool->n_done, end - begin);
        claim = atomic_load(share);
    }
}

static void work(ThreadPool *pool, int thread) {
    for (int i = 0; i < pool->n_threads; i++)
        work_on_share(pool, (thread + i) % pool->n_threads, thread);
}

static void sleep_until_work(ThreadPool *pool, uint64_t seen) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (atomic_load(&pool->loop) == seen && !atomic_load(&pool->closing))
        pthread_cond_wait(&pool->work, &pool->mutex);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *run_worker(void *argument) {
    Worker worker = *(Worker *)argument;
    ThreadPool *pool = worker.pool;
    free(argument);
    cpu_nodes_bind(&pool->nodes, worker.thread, pool->n_threads);
    while (!atomic_load(&pool->closing)) {
        uint64_t seen = atomic_load(&pool->loop);
        work(pool, worker.thread);
        int spins = 0;
        while (atomic_load(&pool->loop) == seen && ++spins < SPINS)
            idle_briefly(pool, worker.thread);
        if (spins == SPINS)
            sleep_until_work(pool, seen);
    }
    return NULL;
}

static void wake_workers(ThreadPool *pool) {
    if (atomic_load(&pool->n_sleeping) == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_loop(ThreadPool *pool, size_t n, size_t grain, Claiming claiming, ThreadTask *task, void *context) {
    if (pool->n_threads == 1 || (n <= grain && claiming != CLAIM_OWN)) {
        if (n > 0)
            task(context, 0, n, 0);
        return;
    }
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->task, task);
    atomic_store(&pool->context, context);
    atomic_store(&pool->n, n);
    atomic_store(&pool->grain, grain);
    atomic_store(&pool->claiming, claiming);
    uint64_t loop = (atomic_load(&pool->loop) + 1) & UINT32_MAX;
    for (int thread = 0; thread < pool->n_threads; thread++)
        atomic_store(&pool->shares[thread].claim, loop << 32 | thread_pool_share_begin(pool, n, thread));
    atomic_store(&pool->loop, loop);
    wake_workers(pool);
    work(pool, 0);
    for (int spins = 0; atomic_load(&pool->n_done) < n; spins++) {
        if (spins < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
    for (int thread = 0; thread < pool->n_threads; thread++)
        atomic_store(&pool->shares[thread].claim, loop << 32 | NO_INDEX);
}

void thread_pool_run(ThreadPool *pool, size_t n, size_t grain, ThreadTask *task, void *context) {
    run_loop(pool, n, grain, CLAIM_GRAINS, task, context);
}

static size_t piece_of(const ThreadPool *pool, size_t n, size_t pieces) {
    size_t n_pieces = (size_t)pool->n_threads * pieces;
    return (n + n_pieces - 1) / n_pieces;
}

void thread_pool_share(ThreadPool *pool, size_t n, size_t pieces, ThreadTask *task, void *context) {
    run_loop(pool, n, piece_of(pool, n, pieces), CLAIM_GRAINS, task, context);
}

void thread_pool_halve(ThreadPool *pool, size_t n, size_t pieces, ThreadTask *task, void *context) {
    run_loop(pool, n, piece_of(pool, n, pieces), CLAIM_HALVES, task, context);
}

void thread_pool_each(ThreadPool *pool, size_t n, ThreadTask *task, void *context) {
    run_loop(pool, n, 0, CLAIM_OWN, task, context);
}

/* The caller's CPUs are given back when the pool is closed. */
static void bind_caller(ThreadPool *pool) {
    cpu_nodes_read(&pool->nodes, "", cpu_allowed());
    if (pool->nodes.n_nodes > 1)
        sched_getaffinity(0, sizeof pool->callers_cpus, &pool->callers_cpus);
    cpu_nodes_bind(&pool->nodes, 0, pool->n_threads);
}

static void release_caller(ThreadPool *pool) {
    if (pool->nodes.n_nodes > 1)
        sched_setaffinity(0, sizeof pool->callers_cpus, &pool->callers_cpus);
}

static int start_workers(ThreadPool *pool, Error *error) {
    for (int thread = 1; thread < pool->n_threads; thread++) {
        Worker *worker = malloc(sizeof *worker);
        if (worker != NULL)
            *worker = (Worker){pool, thread};
        if (worker == NULL || pthread_create(&pool->threads[thread - 1], NULL, run_worker, worker) != 0) {
            free(worker);
            return error_set(error, ERROR_MEMORY, "thread %d cannot be started; use fewer --threads", thread + 1);
        }
        pool->n_workers = thread;
    }
    return 0;
}

int thread_pool_open(ThreadPool **out, int n_threads, Error *error) {
    ThreadPool *pool = calloc(1, sizeof *pool);
    pthread_t *threads = calloc((size_t)n_threads, sizeof *threads);
    Share *shares = aligned_alloc(64, (size_t)n_threads * sizeof *shares);
    if (pool == NULL || threads == NULL || shares == NULL) {
        free(pool);
        free(threads);
        free(shares);
        return error_memory(error, "threads", (unsigned long long)n_threads * sizeof *threads);
    }
    pool->n_threads = n_threads;
    pool->threads = threads;
    pool->shares = shares;
    for (int thread = 0; thread < n_threads; thread++)
        atomic_init(&shares[thread].claim, NO_INDEX);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    bind_caller(pool);
    int status = start_workers(pool, error);
    if (status < 0)
        thread_pool_close(pool);
    else
        *out = pool;
    return status;
}

void thread_pool_close(ThreadPool *pool) {
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->closing, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    release_caller(pool);
    free(pool->threads);
    free(pool->shares);
    free(pool);
}

void thread_pool_set_idle(ThreadPool *pool, ThreadIdle *idle, void *context) {
    pool->idle_context = context;
    atomic_store(&pool->idle, idle);
}

int thread_pool_size(const ThreadPool *pool) {
    return pool->n_threads;
}

size_t thread_pool_n_nodes(const ThreadPool *pool) {
    return pool->nodes.n_nodes;
}
