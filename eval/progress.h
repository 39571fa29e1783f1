/* A line on stderr that tells how far a long evaluation is and how long it will take; it is not shown where stderr is
 * no terminal. progress_tell() prints a line above it that stays, and that a log has too.
 *
 *     Progress progress = progress_begin("perplexity", n_tokens);
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
    size_t total;
    double begin;
    bool visible;
} Progress;

Progress progress_begin(const char *what, size_t total);
void progress_show(const Progress *progress, size_t done, const char *note); /* the note may be "" */
void progress_tell(const Progress *progress, const char *line);              /* without its newline */
void progress_end(const Progress *progress);                                 /* clears the line */

#endif
