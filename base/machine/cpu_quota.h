/* How many CPUs' worth of time the control groups of Linux let this process use: a container limited to 2 CPUs sees all
 * 64 of its host. */
#ifndef STOWKV_CPU_QUOTA_H
#define STOWKV_CPU_QUOTA_H

/* The smallest quota of the process's own group and those around it, v2 and v1, rounded up to whole CPUs; INT_MAX where
 * none limits. `root` is put before "/proc/self/cgroup" and "/sys/fs/cgroup": "" outside tests. */
int cpu_quota(const char *root);

#endif
