/* See cpu.h. */
#include "base/machine/cpu.h"

#include "base/machine/cpu_list.h"
#include "base/machine/cpu_quota.h"

#include <stdio.h>

/* Hyper-threads share a core: a CPU counts when it is the first of its siblings that we may run on. */
static bool is_first_sibling(int cpu, const bool allowed[CPU_MAX]) {
    char path[96];
    bool siblings[CPU_MAX];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    cpu_list_read(path, siblings);
    for (int sibling = 0; sibling < cpu; sibling++)
        if (siblings[sibling] && allowed[sibling])
            return false;
    return true;
}

int cpu_physical_cores(void) {
    const bool *allowed = cpu_allowed();
    int cores = 0;
    for (int cpu = 0; cpu < CPU_MAX; cpu++)
        if (allowed[cpu] && is_first_sibling(cpu, allowed))
            cores++;
    int quota = cpu_quota("");
    cores = cores < quota ? cores : quota;
    return cores > 0 ? cores : 1;
}
