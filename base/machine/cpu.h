/* How many threads this machine offers. */
#ifndef STOWKV_CPU_H
#define STOWKV_CPU_H

/* Physical cores that this process may run on (its affinity mask), or the CPUs' worth of time that its control groups
 * allow it (cpu_quota.h), where that is less; at least 1. */
int cpu_physical_cores(void);

#endif
