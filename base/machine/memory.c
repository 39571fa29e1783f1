/* See memory.h. */
#include "base/machine/memory.h"

#include "base/checked.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

/* Reads the number that a small file of the kernel's begins with. */
static bool read_number(const char *path, size_t *out) {
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    bool found = fscanf(file, "%zu", out) == 1;
    fclose(file);
    return found;
}

/* Bytes of a processor's cache `index` if it is of the highest level and this processor is the first that shares it,
 * so that each cache counts once. Raises *level. */
static size_t cache_of_cpu(size_t cpu, int index, size_t *level) {
    char path[128];
    size_t own_level, first, kib;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/level", cpu, index);
    if (!read_number(path, &own_level) || own_level < *level)
        return 0;
    *level = own_level;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/shared_cpu_list", cpu, index);
    if (!read_number(path, &first) || first != cpu)
        return 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/size", cpu, index);
    return read_number(path, &kib) ? kib * 1024 : 0; /* "32768K" */
}

size_t memory_cache_bytes(void) {
    size_t sum = 0, level = 0;
    long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (size_t cpu = 0; (long)cpu < n_cpus; cpu++)
        for (int index = 0; index < 8; index++) {
            size_t before = level, bytes = cache_of_cpu(cpu, index, &level);
            sum = level > before ? bytes : sum + bytes;
        }
    return sum;
}

size_t memory_available(void) {
    size_t available = (size_t)sysconf(_SC_PHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE), limit, used;
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        size_t kib;
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1)
            available = kib * 1024;
    }
    if (file != NULL)
        fclose(file);
    if (read_number("/sys/fs/cgroup/memory.max", &limit) && read_number("/sys/fs/cgroup/memory.current", &used))
        available = at_most(limit > used ? limit - used : 0, available);
    return available;
}
