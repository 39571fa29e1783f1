/* A line on stderr that tells how far long work is, how fast, and how long it will take; it is not shown where stderr
 * is no terminal. progress_tell() prints a line above it that stays, and that a log has too.
 *
 *     Progress progress = progress_begin("perplexity", n_tokens, "tokens");
 *     progress_show(&progress, n_done, "PPL 12.9560");
 *     progress_tell(&progress, "depth 0, full: 812.35 tokens/s");
 *     progress_end(&progress);
 */
#ifndef STOWKV_PROGRESS_H
#define STOWKV_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Progress {
    const char *what;
    size_t total;     /* 0: nothing is shown */
    const char *unit; /* of the total, for the speed; NULL: it is not told */
    double begin;
    bool visible;
} Progress;

Progress progress_begin(const char *what, size_t total, const char *unit);
void progress_show(const Progress *progress, size_t done, const char *note); /* the note may be "" */
void progress_tell(const Progress *progress, const char *line);              /* without its newline */
void progress_end(Progress *progress); /* clears the line; nothing is shown then */

#endif
