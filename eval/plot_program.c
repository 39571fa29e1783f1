/* See plot_program.h. */
#include "eval/plot_program.h"

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_ARGUMENTS 3
#define NOT_FOUND      127 /* an exit status */

/* In the folder that this was built in, or where it was installed. */
static const char *plot_program(void) {
    static const char *const PATHS[] = {STOWKV_SOURCE_DIR "/eval/plot.py", STOWKV_DATA_DIR "/plot.py"};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++)
        if (access(PATHS[i], R_OK) == 0)
            return PATHS[i];
    return NULL;
}

/* Its exit status; -1 where it did not come to one. */
static int run_python(const char *script, const char *const *arguments) {
    extern char **environ;
    char *all[MOST_ARGUMENTS + 3] = {"python3", (char *)script};
    pid_t child;
    int status;
    for (size_t i = 0; i < MOST_ARGUMENTS && arguments[i] != NULL; i++)
        all[2 + i] = (char *)arguments[i];
    if (posix_spawnp(&child, all[0], NULL, NULL, all, environ) != 0)
        return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void plot_run(const char *const *arguments, FILE *notes) {
    const char *script = plot_program();
    if (script == NULL) {
        fprintf(notes,
                "note: no figures: eval/plot.py is neither in " STOWKV_SOURCE_DIR " nor in " STOWKV_DATA_DIR "\n");
        return;
    }
    int status = run_python(script, arguments); /* it tells itself why it fails, if it runs at all */
    if (status >= 0 && status != NOT_FOUND)
        return;
    fprintf(notes, "note: no figures, as there is no python3; apt-get install python3-matplotlib, then: python3 %s",
            script);
    for (size_t i = 0; arguments[i] != NULL; i++)
        fprintf(notes, " %s", arguments[i]);
    fprintf(notes, "\n");
}
