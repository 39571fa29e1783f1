/* Survives SIGILL by a jump out of its handler; see cpu_try.h. A child process would need no handler, but costs
 * hundreds of microseconds instead of a few, and can be forbidden to start. */
#include "base/machine/cpu_try.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local sigjmp_buf *way_back; /* of the thread that probes; NULL otherwise */

/* A thread that is not probing runs its illegal instruction again, under the default action: that ends the program. */
static void on_illegal(int signal_number) {
    if (way_back != NULL)
        siglongjmp(*way_back, 1);
    signal(signal_number, SIG_DFL);
}

bool cpu_try(CpuProbe *probe) {
    static pthread_mutex_t handler = PTHREAD_MUTEX_INITIALIZER; /* the process has one: a probe at a time */
    struct sigaction action = {.sa_handler = on_illegal}, before;
    sigjmp_buf here;
    volatile bool works = false;
    pthread_mutex_lock(&handler);
    sigemptyset(&action.sa_mask);
    sigaction(SIGILL, &action, &before);
    if (sigsetjmp(here, 1) == 0) {
        way_back = &here;
        works = probe();
    }
    way_back = NULL;
    sigaction(SIGILL, &before, NULL);
    pthread_mutex_unlock(&handler);
    return works;
}
