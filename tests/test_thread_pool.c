/* The thread pool: every index is done exactly once, whatever the sizes; pieces of one thread never run together;
 * a loop is over when it returns; and threads that are put aside rest. */
#include "base/machine/rests.h"
#include "base/machine/thread_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_THREADS = 8, MAX_INDICES = 1000 };

typedef struct Record {
    unsigned char done[MAX_INDICES]; /* plain: two threads at one index would be a data race as well */
    atomic_int inside[MAX_THREADS];
    atomic_bool overlap;
    int n_threads;
} Record;

static void mark(void *context, size_t begin, size_t end, int thread) {
    Record *record = context;
    if (thread >= record->n_threads || atomic_fetch_add(&record->inside[thread], 1) != 0)
        atomic_store(&record->overlap, true);
    for (size_t i = begin; i < end; i++)
        record->done[i]++;
    atomic_fetch_sub(&record->inside[thread], 1);
}

typedef void Loop(ThreadPool *pool, size_t n, size_t grain, ThreadTask *task, void *context);

static void check_loop(ThreadPool *pool, Loop *loop, size_t n, size_t grain) {
    Record record = {.n_threads = thread_pool_size(pool)};
    loop(pool, n, grain, mark, &record);
    assert_false(atomic_load(&record.overlap));
    for (size_t i = 0; i < MAX_INDICES; i++)
        assert_int_equal(record.done[i], i < n);
}

static Loop *const LOOPS[] = {thread_pool_run, thread_pool_share, thread_pool_halve};

static void test_every_index_once(void **state) {
    (void)state;
    Error error = {0};
    const size_t sizes[] = {0, 1, 2, 3, 7, 64, 999, 1000}, grains[] = {1, 2, 5, 64, 1000};
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        ThreadPool *pool;
        assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
        assert_int_equal(thread_pool_size(pool), n_threads);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (size_t j = 0; j < sizeof grains / sizeof *grains; j++)
                for (size_t k = 0; k < sizeof LOOPS / sizeof *LOOPS; k++)
                    check_loop(pool, LOOPS[k], sizes[i], grains[j]);
        thread_pool_close(pool);
    }
}

/* Loops as short as they come, one behind the other: a worker that is late for one must not touch the next. */
static void test_many_short_loops(void **state) {
    (void)state;
    Error error = {0};
    ThreadPool *pool;
    assert_int_equal(thread_pool_open(&pool, 4, &error), 0);
    for (size_t i = 0; i < 30000; i++)
        check_loop(pool, LOOPS[i % 3], 2 + i % 9, 1 + i % 2);
    thread_pool_close(pool);
}

/* How long the pieces of a loop are, in the order of their beginnings. */
typedef struct Pieces {
    size_t length[MAX_INDICES];
} Pieces;

static void note(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    ((Pieces *)context)->length[begin] = end - begin;
}

/* Two threads with 64 indices each: half of what is left of a share, and at last eighths of it. */
static void test_halves(void **state) {
    (void)state;
    Error error = {0};
    ThreadPool *pool;
    assert_int_equal(thread_pool_open(&pool, 2, &error), 0);
    Pieces pieces = {0};
    thread_pool_halve(pool, 128, 8, note, &pieces);
    for (size_t share = 0; share < 128; share += 64) {
        assert_int_equal(pieces.length[share], 32);
        assert_int_equal(pieces.length[share + 32], 16);
        assert_int_equal(pieces.length[share + 48], 8);
        assert_int_equal(pieces.length[share + 56], 8);
    }
    thread_pool_close(pool);
}

typedef struct Owners {
    int thread[MAX_INDICES]; /* that did an index, from 1 on; 0: none yet */
    size_t n_pieces[MAX_THREADS];
} Owners;

static void note_owner(void *context, size_t begin, size_t end, int thread) {
    Owners *owners = context;
    owners->n_pieces[thread]++;
    for (size_t i = begin; i < end; i++)
        owners->thread[i] = owners->thread[i] == 0 ? thread + 1 : -1;
}

/* What each thread does is its share, whole, though others are through long before. */
static void test_each(void **state) {
    (void)state;
    Error error = {0};
    const size_t sizes[] = {0, 1, 2, 3, 5, 64, 999};
    for (int n_threads = 1; n_threads <= MAX_THREADS; n_threads++) {
        ThreadPool *pool;
        assert_int_equal(thread_pool_open(&pool, n_threads, &error), 0);
        for (size_t i = 0; i < 50 * sizeof sizes / sizeof *sizes; i++) {
            size_t n = sizes[i / 50];
            Owners owners = {0};
            thread_pool_each(pool, n, note_owner, &owners);
            for (int thread = 0; thread < n_threads; thread++) {
                size_t begin = n * (size_t)thread / (size_t)n_threads,
                       end = n * (size_t)(thread + 1) / (size_t)n_threads;
                assert_int_equal(owners.n_pieces[thread], begin < end);
                for (size_t index = begin; index < end; index++)
                    assert_int_equal(owners.thread[index], thread + 1);
            }
            check_loop(pool, thread_pool_run, 9, 1); /* and the next loop is as any other */
        }
        thread_pool_close(pool);
    }
}

static void add_all(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add((atomic_size_t *)context, i);
}

/* The context lives on the caller's stack: nobody may look at it afterwards. */
static void test_sums(void **state) {
    (void)state;
    Error error = {0};
    ThreadPool *pool;
    assert_int_equal(thread_pool_open(&pool, 3, &error), 0);
    for (size_t n = 1; n < 3000; n += 7) {
        atomic_size_t sum = 0;
        thread_pool_run(pool, n, 1 + n / 12, add_all, &sum);
        assert_int_equal(atomic_load(&sum), n * (n - 1) / 2);
    }
    thread_pool_close(pool);
    thread_pool_close(NULL);
}

static void count_call(void *context, int thread) {
    assert_int_equal(thread, 1); /* the caller does not wait for work */
    atomic_fetch_add((atomic_size_t *)context, 1);
}

/* Threads that wait call what they were given; loops go on as before. */
static void test_idle(void **state) {
    (void)state;
    Error error = {0};
    ThreadPool *pool;
    atomic_size_t n_calls = 0;
    assert_int_equal(thread_pool_open(&pool, 2, &error), 0);
    thread_pool_set_idle(pool, count_call, &n_calls);
    for (size_t i = 0; i < 100 || atomic_load(&n_calls) == 0; i++) /* the other thread's turn comes when it comes */
        check_loop(pool, thread_pool_run, 3, 1);
    thread_pool_close(pool);
}

static void check_owners(ThreadPool *pool, int end) {
    Owners owners = {0};
    thread_pool_run(pool, 999, 1, note_owner, &owners);
    for (size_t i = 0; i < 999; i++)
        assert_in_range(owners.thread[i], 1, end);
}

/* A worker at rest takes no part, however long loops go on; thread_pool_each() and the end of the pool wake it. */
static void test_rest(void **state) {
    (void)state;
    const double for_ever = 1e9;
    Error error = {0};
    ThreadPool *pool;
    assert_int_equal(thread_pool_open(&pool, 3, &error), 0);
    thread_pool_rest(pool, for_ever);
    do /* until it has seen that it should */
        check_loop(pool, thread_pool_run, 999, 1);
    while (thread_pool_n_resting(pool) < 1);
    for (int i = 0; i < 100; i++)
        check_owners(pool, 2);
    thread_pool_rest(pool, for_ever);
    do
        check_loop(pool, thread_pool_run, 999, 1);
    while (thread_pool_n_resting(pool) < 2);
    thread_pool_rest(pool, for_ever); /* nobody is left but the caller, who never rests */
    for (int i = 0; i < 100; i++)
        check_owners(pool, 1);
    Owners owners = {0};
    thread_pool_each(pool, 3, note_owner, &owners);
    for (int thread = 0; thread < 3; thread++)
        assert_int_equal(owners.thread[thread], thread + 1);
    thread_pool_rest(pool, for_ever);
    thread_pool_close(pool);
}

/* Slices of 4 ms: a process of the same priority takes every other one, a niced one one of 70. */
static void test_when_to_rest(void **state) {
    (void)state;
    assert_true(rest_of_late(0.004, 0.008, 2) > 0.1);
    assert_true(rest_of_late(0.004, 0.280, 2) == 0);
    assert_true(rest_of_late(0.004, 0.280, 64) > 0.1); /* 63 threads wait */
    assert_true(rest_of_late(-0.001, 0.008, 2) == 0);  /* it was another loop that the caller waits for */
    assert_true(rest_of_lost(0.024, 0.050) > 0.1);
    assert_true(rest_of_lost(0.004, 0.050) == 0);
    assert_true(rest_of_lost(60, 100) == REST_MAX_SECONDS);
    assert_true(rest_again(0.125, 0.25, 0.1) == 0.5); /* no sooner back than late again */
    assert_true(rest_again(0.125, 0.25, 0.3) == 0.125);
    assert_true(rest_again(0.125, 0.75, 0.1) == REST_MAX_SECONDS);
    assert_true(rest_again(0, 0.25, 0.1) == 0);
}

/* The clock goes on, and no thread computes for longer than time goes by. */
static void test_usage(void **state) {
    (void)state;
    ThreadUsage before = thread_usage(), now;
    do
        now = thread_usage();
    while (now.cpu - before.cpu < 0.002);
    assert_true(now.wall - before.wall > 0.0015);
    assert_true(now.n_put_aside >= before.n_put_aside && now.n_slept >= before.n_slept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_index_once),
        cmocka_unit_test(test_many_short_loops),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_when_to_rest),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
