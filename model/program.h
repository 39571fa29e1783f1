/* What the main() of every program does alike: the flags that only inform, Ctrl-C, the one-line error, exit statuses.
 *
 *     static ProgramFlags flags;
 *     const Option options[] = {…, PROGRAM_OPTIONS(flags), {0}};
 *     int status = options_parse(options, argc, argv, &error);
 *     if (status == 0 && program_informs(&flags))
 *         status = program_inform(&flags, "Usage: …", options, simd, &error);
 *     else if (status == 0) {
 *         program_catch_interrupts();
 *         …
 *     }
 *     return program_exit("perplexity", status, &error);
 */
#ifndef STOWKV_PROGRAM_H
#define STOWKV_PROGRAM_H

#include "model/base/options.h"

#include <signal.h>
#include <stdbool.h>

typedef struct ProgramFlags {
    bool list_codecs, list_kernels, help, version;
} ProgramFlags;

#define PROGRAM_OPTIONS(f)                                                                                             \
    {"list_codecs", OPTION_FLAG, &(f).list_codecs, NULL, "print the cache's codecs, and stop", 0, 0},                  \
        {"list_kernels", OPTION_FLAG, &(f).list_kernels, NULL, "print what computes, and stop", 0, 0},                 \
        {"help", OPTION_FLAG, &(f).help, NULL, "print this, and stop", 0, 0}, {                                        \
        "version", OPTION_FLAG, &(f).version, NULL, "print the version, and stop", 0, 0                                \
    }

/* Whether one of the flags is given: then the program prints it and stops. */
bool program_informs(const ProgramFlags *flags);

/* Prints what they ask for. `usage` stands above the options in --help, `simd` is the level that --list_kernels shows.
 */
int program_inform(const ProgramFlags *flags, const char *usage, const Option *options, const char *simd, Error *error);

/* Set by Ctrl-C once program_catch_interrupts() was called: a signal handler can reach nothing else. Whoever should
 * stop is given its address, so that no library reads it. A second Ctrl-C ends the program at once. */
extern volatile sig_atomic_t program_interrupted;
void program_catch_interrupts(void);

/* Makes sure that what was printed on stdout is there. */
int program_flush_stdout(Error *error);

/* Prints the error, if there is one, as "PROGRAM: error: cause; cure". 0 done, 1 failed, 2 bad usage, 130 after Ctrl-C.
 */
int program_exit(const char *program, int status, const Error *error);

#endif
