/* Each thread has a share of the loop, a run of indices, and claims pieces of it from one atomic word: the loop's
 * number above, the next index below. A thread that is through with its own share claims from the others'. A thread
 * reads the loop's description and then claims; if it succeeds, the loop was still that one and had work left, so the
 * caller is still inside thread_pool_run() and the description was the right one. Between loops the next indices are
 * beyond any loop's end, so that a description that is being written cannot be claimed from.
 *
 * On a machine where others want the CPUs too, a worker that was put aside within a piece holds up all threads, and
 * rests then (rests.h): it sleeps through some loops, which the others do without it. See thread_pool.h. */
#define _GNU_SOURCE
#include "base/machine/thread_pool.h"

#include "base/machine/clock.h"
#include "base/machine/cpu_nodes.h"
#include "base/machine/rests.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* How often a worker looks for new work before it sleeps: for longer than the pauses between the steps of a layer. */
#define SPINS 2000

/* How often the caller does when a loop is through but for pieces of others. Longer: it is woken some 50 us late. */
#define CALLERS_SPINS 10000

#define LOOPS_BETWEEN_LOOKS 64 /* of the caller at what it lost itself */

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
    _Atomic(double) rest_until;           /* of clock_seconds(), of a worker */
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
    atomic_int n_sleeping, n_resting;
    atomic_int callers_cpu;
    atomic_bool caller_waits;      /* asleep, or about to be */
    _Atomic(double) waiting_since; /* while caller_waits */
    double slept;                  /* seconds that the caller waited asleep, and how often, since callers_usage */
    long n_sleeps;
    ThreadUsage callers_usage;
    double rest, rest_end; /* of the last one that the caller was the reason of */
    atomic_bool closing;
    pthread_mutex_t mutex; /* for sleeping alone */
    pthread_cond_t work, done, awake;
    CpuNodes nodes;
    cpu_set_t callers_cpus; /* before bind_caller() */
};

typedef struct Worker {
    ThreadPool *pool;
    int thread;
    ThreadUsage usage; /* when it was late the last time, or came back from a rest */
    double rest;       /* seconds of its last one; 0: none yet */
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

static void rest(ThreadPool *pool, int thread, double seconds) {
    atomic_store(&pool->shares[thread].rest_until, clock_seconds() + seconds);
}

/* A worker has done the last of a loop's indices, and the caller sleeps by now. */
static void wake_caller(ThreadPool *pool, Worker *worker) {
    ThreadUsage now = thread_usage();
    double late = now.wall - atomic_load(&pool->waiting_since);
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->mutex);
    double elapsed = now.wall - worker->usage.wall, seconds = rest_of_late(late, elapsed, pool->n_threads);
    if (seconds > 0 && now.n_put_aside > worker->usage.n_put_aside) {
        worker->rest = rest_again(seconds, worker->rest, elapsed);
        rest(pool, worker->thread, worker->rest);
    }
    worker->usage = now;
}

/* Claims pieces of one thread's share of whatever loop is running and does them, until it has none left. */
static void work_on_share(ThreadPool *pool, int owner, Worker *worker) {
    int thread = worker->thread;
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
        if (atomic_fetch_add(&pool->n_done, end - begin) + (end - begin) == n && atomic_load(&pool->caller_waits))
            wake_caller(pool, worker);
        claim = atomic_load(share);
    }
}

static void work(Worker *worker) {
    ThreadPool *pool = worker->pool;
    for (int i = 0; i < pool->n_threads; i++)
        work_on_share(pool, (worker->thread + i) % pool->n_threads, worker);
}

/* Where no CPU is idle the kernel wakes a worker on the CPU of the caller that wakes it, and the two would take turns
 * there while another process has the other CPU for itself. */
static void leave_callers_cpu(ThreadPool *pool) {
    cpu_set_t allowed, others;
    int cpu = atomic_load(&pool->callers_cpu);
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getcpu() != cpu || sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return;
    others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

static void sleep_until_work(ThreadPool *pool, uint64_t seen) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (atomic_load(&pool->loop) == seen && !atomic_load(&pool->closing))
        pthread_cond_wait(&pool->work, &pool->mutex);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
    leave_callers_cpu(pool);
}

/* Sleeps for as long as it was told to; thread_pool_each() and the end of the pool cannot wait for that. */
static void rest_if_told(Worker *worker) {
    ThreadPool *pool = worker->pool;
    double until = atomic_load(&pool->shares[worker->thread].rest_until);
    if (until == 0)
        return;
    struct timespec end = {(time_t)until, (long)((until - (double)(time_t)until) * 1e9)};
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_resting, 1);
    while (!atomic_load(&pool->closing) && atomic_load(&pool->claiming) != CLAIM_OWN && clock_seconds() < until)
        pthread_cond_timedwait(&pool->awake, &pool->mutex, &end);
    atomic_fetch_sub(&pool->n_resting, 1);
    pthread_mutex_unlock(&pool->mutex);
    atomic_store(&pool->shares[worker->thread].rest_until, 0);
    leave_callers_cpu(pool);
    worker->usage = thread_usage();
}

static void *run_worker(void *argument) {
    Worker worker = *(Worker *)argument;
    ThreadPool *pool = worker.pool;
    free(argument);
    cpu_nodes_bind(&pool->nodes, worker.thread, pool->n_threads);
    worker.usage = thread_usage();
    worker.usage.wall -= REST_CREDIT_SECONDS;
    while (!atomic_load(&pool->closing)) {
        uint64_t seen = atomic_load(&pool->loop);
        work(&worker);
        rest_if_told(&worker);
        int spins = 0;
        while (atomic_load(&pool->loop) == seen && ++spins < SPINS)
            idle_briefly(pool, worker.thread);
        if (spins == SPINS)
            sleep_until_work(pool, seen);
    }
    return NULL;
}

static void wake_workers(ThreadPool *pool, Claiming claiming) {
    if (atomic_load(&pool->n_sleeping) == 0 && claiming != CLAIM_OWN)
        return;
    atomic_store(&pool->callers_cpu, sched_getcpu());
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->work);
    if (claiming == CLAIM_OWN)
        pthread_cond_broadcast(&pool->awake);
    pthread_mutex_unlock(&pool->mutex);
}

void thread_pool_rest(ThreadPool *pool, double seconds) {
    for (int thread = pool->n_threads - 1; thread > 0; thread--)
        if (atomic_load(&pool->shares[thread].rest_until) == 0) {
            rest(pool, thread, seconds);
            return;
        }
}

/* Where others take the caller's own CPU, a worker less may leave it another one, and is no loss while the caller, who
 * does all that is between loops, is away. */
static void look_at_caller(ThreadPool *pool) {
    ThreadUsage now = thread_usage(), before = pool->callers_usage;
    double elapsed = now.wall - before.wall;
    if (elapsed < REST_LOOK_SECONDS)
        return;
    bool slept_elsewhere = now.n_slept - before.n_slept > pool->n_sleeps;
    double seconds = rest_of_lost(elapsed - (now.cpu - before.cpu) - pool->slept, elapsed);
    if (seconds > 0 && now.n_put_aside > before.n_put_aside && !slept_elsewhere) {
        pool->rest = rest_again(seconds, pool->rest, now.wall - pool->rest_end);
        pool->rest_end = now.wall + pool->rest;
        thread_pool_rest(pool, pool->rest);
    }
    pool->callers_usage = now;
    pool->slept = 0;
    pool->n_sleeps = 0;
}

static void sleep_until_done(ThreadPool *pool, size_t n) {
    double since = clock_seconds();
    atomic_store(&pool->waiting_since, since);
    pthread_mutex_lock(&pool->mutex);
    /* Before n_done is looked at, as who adds to it looks at this behind that. An exchange, for emulators of processors
     * whose stores do not wait for the loads behind them keep a plain store no better. */
    (void)atomic_exchange(&pool->caller_waits, true);
    while (atomic_load(&pool->n_done) < n) {
        pool->n_sleeps++;
        pthread_cond_wait(&pool->done, &pool->mutex);
    }
    atomic_store(&pool->caller_waits, false);
    pthread_mutex_unlock(&pool->mutex);
    pool->slept += clock_seconds() - since;
}

static void wait_until_done(ThreadPool *pool, size_t n) {
    int spins = 0;
    while (atomic_load(&pool->n_done) < n && ++spins < CALLERS_SPINS)
        pause_briefly();
    if (spins == CALLERS_SPINS)
        sleep_until_done(pool, n);
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
    wake_workers(pool, claiming);
    work(&(Worker){.pool = pool, .thread = 0});
    wait_until_done(pool, n);
    if (loop % LOOPS_BETWEEN_LOOKS == 0)
        look_at_caller(pool);
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
            *worker = (Worker){.pool = pool, .thread = thread};
        if (worker == NULL || pthread_create(&pool->threads[thread - 1], NULL, run_worker, worker) != 0) {
            free(worker);
            return error_set(error, ERROR_MEMORY, "thread %d cannot be started; use fewer --threads", thread + 1);
        }
        pool->n_workers = thread;
    }
    return 0;
}

static void init_sleeping(ThreadPool *pool) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* clock_seconds()' */
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pthread_cond_init(&pool->awake, &attributes);
    pthread_condattr_destroy(&attributes);
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
    for (int thread = 0; thread < n_threads; thread++) {
        atomic_init(&shares[thread].claim, NO_INDEX);
        atomic_init(&shares[thread].rest_until, 0);
    }
    atomic_init(&pool->callers_cpu, -1);
    init_sleeping(pool);
    bind_caller(pool);
    pool->callers_usage = thread_usage();
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
    pthread_cond_broadcast(&pool->awake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->awake);
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

int thread_pool_n_resting(const ThreadPool *pool) {
    return atomic_load(&pool->n_resting);
}

size_t thread_pool_n_nodes(const ThreadPool *pool) {
    return pool->nodes.n_nodes;
}
