/* CPUs by their numbers: the kernel's lists of them, and those that this process may use. */
#ifndef STOWKV_CPU_LIST_H
#define STOWKV_CPU_LIST_H

#include <stdbool.h>

#define CPU_MAX 1024 /* as many as a cpu_set_t holds */

/* Reads a file such as "0-3,8,10-11\n"; false where it cannot be read or lists no CPU. */
bool cpu_list_read(const char *path, bool listed[CPU_MAX]);

/* (CPU_MAX) the affinity mask at the first call; all false where the system does not tell. */
const bool *cpu_allowed(void);

#endif
