/* Threads that share loops. Each has a run of the loop's indices and goes through it in pieces, so that it reads memory
 * in one stream; a thread that is through takes pieces of the others' runs, so that one that the machine has put aside
 * holds up no more than the piece it is in. The caller works too, and never waits for a thread that has not begun.
 * Threads that are put aside again and again rest for a while (rests.h), so that with a process that wants a core for
 * itself loops are no slower than with a thread less.
 *
 *     ThreadPool *pool;
 *     if (thread_pool_open(&pool, 4, &error) < 0) …
 *     thread_pool_run(pool, n_rows, 64, multiply_rows, &job);   // multiply_rows(&job, begin, end, thread) for all rows
 *     thread_pool_close(pool);
 *
 * OpenMP's runtime spins at its barriers for as long as a thread is late. Where another process wants a core too, that
 * costs a factor of five to ten: docs/performance.md. */
#ifndef STOWKV_THREAD_POOL_H
#define STOWKV_THREAD_POOL_H

#include "base/error.h"

#include <stddef.h>

typedef struct ThreadPool ThreadPool;

/* Does [begin, end) of a loop; `thread` is below the pool's size, and no two pieces with the same one run at a time. */
typedef void ThreadTask(void *context, size_t begin, size_t end, int thread);

/* n_threads: at least 1, the caller included. */
int thread_pool_open(ThreadPool **out, int n_threads, Error *error);
void thread_pool_close(ThreadPool *pool); /* NULL is fine */

/* Where the share of a thread begins in a loop over [0, n). */
size_t thread_pool_share_begin(const ThreadPool *pool, size_t n, int thread);

int thread_pool_size(const ThreadPool *pool);

/* What threads that wait for work do over and over: something short that may be left out, such as prefetching. To be
 * set once; what it uses must outlive the pool. */
typedef void ThreadIdle(void *context, int thread);
void thread_pool_set_idle(ThreadPool *pool, ThreadIdle *idle, void *context);

/* Calls `task` until [0, n) is done, n below 2^32, in pieces of `grain` (at least 1), and returns then. To be called by
 * one thread at a time, and not from a task. */
void thread_pool_run(ThreadPool *pool, size_t n, size_t grain, ThreadTask *task, void *context);

/* The same in about `pieces` pieces for each thread. */
void thread_pool_share(ThreadPool *pool, size_t n, size_t pieces, ThreadTask *task, void *context);

/* Each thread does its own share of [0, n) in one piece, and nobody takes it over: for first touches, by which memory
 * lies near the thread whose share of later loops over [0, n) reads it. */
void thread_pool_each(ThreadPool *pool, size_t n, ThreadTask *task, void *context);

/* The last of the workers that are not at rest leaves loops to the others for so many seconds; thread_pool_each() wakes
 * it. The pool does this itself where it pays. */
void thread_pool_rest(ThreadPool *pool, double seconds);
int thread_pool_n_resting(const ThreadPool *pool);

/* Memory nodes that the threads are spread over (cpu_nodes.h): 1 on most machines, where no memory is nearer than other
 * memory. With more, each thread keeps to the CPUs of its node from open to close, the caller too. */
size_t thread_pool_n_nodes(const ThreadPool *pool);

/* As thread_pool_share(), but a piece is half of what is left of a share, or a `pieces`th of the share if that is more.
 * For short loops, where claims and waits at the end weigh; in a long one a thread that is put aside would hold up half
 * of its share. */
void thread_pool_halve(ThreadPool *pool, size_t n, size_t pieces, ThreadTask *task, void *context);

#endif
