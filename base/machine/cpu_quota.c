/* Reads cpu.max (v2) and cpu.cfs_quota_us (v1), as the kernel's cgroup-v2.rst and sched-bwc.rst describe them; see
 * cpu_quota.h. Hierarchies are looked for where systemd and container engines mount them. */
#include "base/machine/cpu_quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_line(const char *folder, const char *name, char line[64]) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    bool read = fgets(line, 64, file) != NULL;
    fclose(file);
    return read;
}

/* Both in microseconds. No limit is "max" in v2 and -1 in v1. */
static bool read_quota(const char *folder, bool v2, long long *quota, long long *period) {
    char line[64];
    if (v2)
        return read_line(folder, "cpu.max", line) && sscanf(line, "%lld %lld", quota, period) == 2;
    return read_line(folder, "cpu.cfs_quota_us", line) && sscanf(line, "%lld", quota) == 1 &&
           read_line(folder, "cpu.cfs_period_us", line) && sscanf(line, "%lld", period) == 1;
}

static int folder_quota(const char *folder, bool v2) {
    long long quota, period;
    if (!read_quota(folder, v2, &quota, &period) || quota <= 0 || period <= 0)
        return INT_MAX;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < INT_MAX ? (int)cpus : INT_MAX;
}

static bool has_cpu(const char *controllers) { // "cpu,cpuacct"
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strcspn(at, ",") == 3 && strncmp(at, "cpu", 3) == 0)
            return true;
    }
    return false;
}

/* The smallest quota from the group's folder up to the mount. A container without a cgroup namespace sees its host's
 * path: folders of it that do not exist below the container's mount limit nothing. */
static int hierarchy_quota(const char *mount, const char *path, bool v2) {
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s%s", mount, path) >= (int)sizeof folder)
        return INT_MAX;
    int least = INT_MAX;
    for (char *end = folder + strlen(folder); end != NULL; end = strrchr(folder + strlen(mount), '/')) {
        *end = '\0';
        int quota = folder_quota(folder, v2);
        least = quota < least ? quota : least;
    }
    return least;
}

/* A line of /proc/self/cgroup: HIERARCHY:CONTROLLERS:PATH; v2 is hierarchy 0 and names no controllers. */
static int line_quota(const char *root, char *line) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL)
        return INT_MAX;
    *path++ = '\0';
    controllers++;
    bool v2 = *controllers == '\0';
    char mount[PATH_MAX];
    if ((!v2 && !has_cpu(controllers)) ||
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, v2 ? "" : "/", controllers) >= (int)sizeof mount)
        return INT_MAX;
    return hierarchy_quota(mount, path, v2);
}

int cpu_quota(const char *root) {
    char path[PATH_MAX], *line = NULL;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return INT_MAX;
    int least = INT_MAX;
    for (size_t size = 0; getline(&line, &size, file) >= 0;) {
        int quota = line_quota(root, line);
        least = quota < least ? quota : least;
    }
    free(line);
    fclose(file);
    return least;
}
