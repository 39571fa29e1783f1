/* What the main() of every program does alike: the command line, the flags that only inform, Ctrl-C, the one-line error
 * and the exit status.
 *
 *     int main(int argc, char **argv) {
 *         static ProgramFlags flags;
 *         const Option options[] = {…, PROGRAM_OPTIONS(flags), {0}};
 *         const ProgramMain steps = {"generate", USAGE, options, &flags, &settings.session, check, run, close};
 *         return program_main(argc, argv, &steps, &program);
 *     }
 */
#ifndef STOWKV_PROGRAM_H
#define STOWKV_PROGRAM_H

#include "session/session.h"
#include "session/signals.h"

typedef struct ProgramFlags {
    bool list_codecs, list_kernels, help, version;
} ProgramFlags;

#define PROGRAM_OPTIONS(f)                                                                                             \
    {"list_codecs", OPTION_FLAG, &(f).list_codecs, NULL, "print the cache's codecs, and stop", 0, 0},                  \
        {"list_kernels", OPTION_FLAG, &(f).list_kernels, NULL, "print what computes, and stop", 0, 0},                 \
        {"help", OPTION_FLAG, &(f).help, NULL, "print this, and stop", 0, 0}, {                                        \
        "version", OPTION_FLAG, &(f).version, NULL, "print the version, and stop", 0, 0                                \
    }

/* The steps of a program; `state` is its own, and close() gets it whatever happened before. */
typedef struct ProgramMain {
    const char *name, *usage; /* `usage` stands above the options in --help */
    const Option *options;
    const ProgramFlags *flags;               /* where one is given, it is obeyed, and nothing else is done */
    const SessionOptions *session;           /* the program's: a level for --list_kernels, files that are read */
    int (*check)(void *state, Error *error); /* all that the command line alone can be wrong about */
    int (*run)(void *state, Error *error);   /* from here on signals are caught, see signals.h */
    void (*close)(void *state);
} ProgramMain;

/* The exit status: 0 done, 1 failed, 2 bad usage, 130 after Ctrl-C; other signals end the program as they do any, after
 * what it had begun to write is removed. An error is printed as "NAME: error: cause; cure". */
int program_main(int argc, char **argv, const ProgramMain *steps, void *state);

/* Makes sure that what was printed on stdout is there. */
int program_flush_stdout(Error *error);

#endif
