/* See progress.h. */
#include "eval/progress.h"

#include "base/machine/clock.h"

#include <stdio.h>
#include <unistd.h>

Progress progress_begin(const char *what, size_t total, const char *unit) {
    return (Progress){what, total, unit, clock_seconds(), isatty(STDERR_FILENO) != 0};
}

void progress_show(const Progress *progress, size_t done, const char *note) {
    if (!progress->visible || progress->total == 0)
        return;
    double elapsed = clock_seconds() - progress->begin;
    long left = done > 0 ? (long)(elapsed * (double)(progress->total - done) / (double)done) : 0;
    fprintf(stderr, "\r\033[K%s: %.1f %%", progress->what, 100.0 * (double)done / (double)progress->total);
    if (done > 0 && elapsed > 0 && progress->unit != NULL)
        fprintf(stderr, ", %.3g %s/s", (double)done / elapsed, progress->unit);
    if (done > 0)
        fprintf(stderr, ", %ld:%02ld left", left / 60, left % 60);
    fprintf(stderr, "%s%s", note[0] != '\0' ? ", " : "", note);
}

void progress_tell(const Progress *progress, const char *line) {
    fprintf(stderr, "%s%s\n", progress->visible ? "\r\033[K" : "", line);
}

void progress_end(Progress *progress) {
    if (progress->visible && progress->total > 0)
        fprintf(stderr, "\r\033[K");
    progress->total = 0;
}
