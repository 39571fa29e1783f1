/* How many threads this machine offers. */
#ifndef STOWKV_CPU_H
#define STOWKV_CPU_H

/* Physical cores that this process may run on (its affinity mask), or fewer where a control group gives it less time
 * than that; at least 1. */
int cpu_physical_cores(void);

#endif
