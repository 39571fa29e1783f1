/* How signals end a program. The first Ctrl-C asks the work to stop, which then reports what is done. Every other
 * signal that ends a program (SIGTERM, SIGHUP, SIGPIPE of a reader that has gone, a crash, a second Ctrl-C) does so at
 * once and as usual, so that the exit status tells which; temporary files are removed before. */
#ifndef STOWKV_SIGNALS_H
#define STOWKV_SIGNALS_H

#include <signal.h>

/* Set by the first Ctrl-C after signals_catch(): a signal handler can reach nothing else. Whoever should stop is given
 * its address, so that no library reads it. */
extern volatile sig_atomic_t program_interrupted;

/* Signals that are ignored (SIGHUP under nohup), or caught by a sanitizer, stay so. A file that grows beyond `ulimit
 * -f` is an error of writing it from here on, as a full disk is. */
void signals_catch(void);

#endif
