/* Profiles as one file in Chrome's trace format, which ui.perfetto.dev opens: a process for each mode, in it the steps
 * above the operations, and the cache's bytes by tier as counters.
 *
 *     trace_begin(stream);
 *     trace_add(&mode, 1, stream);
 *     trace_end(stream);                // errors stay in the stream
 */
#ifndef STOWKV_TRACE_H
#define STOWKV_TRACE_H

#include "eval/profile/profiled_mode.h"

#include <stdio.h>

void trace_begin(FILE *stream);
void trace_add(const ProfiledMode *mode, int process, FILE *stream); /* process: from 1 on, another for each mode */
void trace_end(FILE *stream);

#endif
