/* See signals.h. */
#include "session/signals.h"

#include "base/output_file.h"

#include <stddef.h>

volatile sig_atomic_t program_interrupted;

static const int ENDS[] = {SIGHUP,  SIGQUIT, SIGTERM, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2,
                           SIGXCPU, SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,  SIGABRT};

/* SA_RESETHAND has the default action back: the signal ends the program when this returns. */
static void on_end(int signal_number) {
    output_files_abandon();
    raise(signal_number);
}

static void set_handler(int signal_number, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

static void on_interrupt(int signal_number) {
    program_interrupted = 1;
    set_handler(signal_number, on_end, (int)SA_RESETHAND);
}

void signals_catch(void) {
    for (size_t i = 0; i < sizeof ENDS / sizeof *ENDS; i++) {
        struct sigaction before;
        if (sigaction(ENDS[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            set_handler(ENDS[i], on_end, (int)SA_RESETHAND);
    }
    set_handler(SIGINT, on_interrupt, 0); /* no SA_RESTART: reading a line ends too */
    set_handler(SIGXFSZ, SIG_IGN, 0);
}
