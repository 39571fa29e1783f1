/* See cpu_list.h. */
#define _GNU_SOURCE
#include "base/machine/cpu_list.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

bool cpu_list_read(const char *path, bool listed[CPU_MAX]) {
    memset(listed, 0, CPU_MAX * sizeof *listed);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    int from, separator = ',';
    bool found = false;
    while (separator == ',' && fscanf(file, "%d", &from) == 1) {
        int to = from;
        separator = fgetc(file);
        if (separator == '-' && fscanf(file, "%d", &to) == 1)
            separator = fgetc(file);
        for (int cpu = from; from >= 0 && cpu <= to && cpu < CPU_MAX; cpu++)
            found = listed[cpu] = true;
    }
    fclose(file);
    return found;
}

static bool allowed[CPU_MAX];

static void ask_system(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_MAX; cpu++)
            allowed[cpu] = CPU_ISSET(cpu, &set);
}

const bool *cpu_allowed(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_system);
    return allowed;
}
