/* When a thread of a pool should rest: where other processes want the CPUs, a thread that was put aside in the middle
 * of its work costs the others more than it does, and a loop is faster without it. The kernel's slices are
 * milliseconds, a loop of decoding tenths of one.
 *
 *     ThreadUsage before = thread_usage();
 *     … a piece of a loop, for which the others have waited `late` seconds …
 *     ThreadUsage now = thread_usage();
 *     if (now.n_put_aside > before.n_put_aside)
 *         sleep_for(rest_of_late(late, now.wall - before.wall, n_threads));
 *
 * The share and the factor were found beside one loop and two on two cores: docs/performance.md. */
#ifndef STOWKV_RESTS_H
#define STOWKV_RESTS_H

/* Of the calling thread, since any moment. */
typedef struct ThreadUsage {
    double wall, cpu; /* seconds */
    long n_put_aside; /* times that the kernel gave its CPU to others */
    long n_slept;     /* times that it waited for something */
} ThreadUsage;

ThreadUsage thread_usage(void);

#define REST_LOOK_SECONDS   0.05 /* the shortest time for rest_of_lost(): one slice of a niced process is no pattern */
#define REST_CREDIT_SECONDS 0.1  /* that a thread begins with: what started the program may not have ended yet */
#define REST_MAX_SECONDS    0.5  /* so that nobody is missed for long who could work again */

/* Seconds of rest for a thread that let the others wait for `late` seconds, when `elapsed` seconds had gone by since it
 * was late the last time or began. 0: it does more than it costs. */
double rest_of_late(double late, double elapsed, int n_threads);

/* The rest that is due when `rest` is, behind one of `last` seconds that ended `elapsed` seconds ago: twice as long as
 * that where it did not help for as long as it lasted. */
double rest_again(double rest, double last, double elapsed);

/* Seconds that another thread should rest when the one that all wait for, since it begins each loop, was kept from its
 * CPU for `lost` of the `elapsed` seconds. */
double rest_of_lost(double lost, double elapsed);

#endif
