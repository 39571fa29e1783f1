/* See cpu_nodes.h. Only affinity masks are set: containers forbid the calls that place memory (mbind and its like), and
 * first touch needs none of them. */
#define _GNU_SOURCE
#include "base/machine/cpu_nodes.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>

static void add_node(CpuNodes *nodes, int node, const bool listed[CPU_MAX], const bool allowed[CPU_MAX]) {
    size_t before = nodes->n_cpus;
    for (int cpu = 0; cpu < CPU_MAX && nodes->n_cpus < CPU_MAX; cpu++)
        if (listed[cpu] && allowed[cpu]) {
            nodes->cpu[nodes->n_cpus] = (uint16_t)cpu;
            nodes->node[nodes->n_cpus++] = (uint16_t)node;
        }
    nodes->n_nodes += nodes->n_cpus > before; /* a node without allowed CPUs does not count */
}

void cpu_nodes_read(CpuNodes *out, const char *root, const bool allowed[CPU_MAX]) {
    char path[PATH_MAX];
    bool online[CPU_MAX], listed[CPU_MAX];
    *out = (CpuNodes){0};
    snprintf(path, sizeof path, "%s/sys/devices/system/node/online", root);
    cpu_list_read(path, online); /* a list of nodes in the same form */
    for (int node = 0; node < CPU_MAX; node++) {
        snprintf(path, sizeof path, "%s/sys/devices/system/node/node%d/cpulist", root, node);
        if (online[node] && cpu_list_read(path, listed))
            add_node(out, node, listed, allowed);
    }
    if (out->n_nodes == 0)
        *out = (CpuNodes){.n_nodes = 1, .n_cpus = 1};
}

int cpu_nodes_of_thread(const CpuNodes *nodes, int thread, int n_threads) {
    return nodes->node[nodes->n_cpus * (size_t)thread / (size_t)n_threads];
}

void cpu_nodes_bind(const CpuNodes *nodes, int thread, int n_threads) {
    if (nodes->n_nodes < 2)
        return;
    int node = cpu_nodes_of_thread(nodes, thread, n_threads);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < nodes->n_cpus; i++)
        if (nodes->node[i] == node)
            CPU_SET(nodes->cpu[i], &set);
    sched_setaffinity(0, sizeof set, &set);
}
