/* Memory nodes (NUMA): on machines with several memories each CPU has one that is near. The kernel gives a page of
 * memory to the node of the thread that first touches it; so threads that keep to the CPUs of one node, and first touch
 * what they will read (pages.h), read from nearby.
 *
 *     CpuNodes nodes;
 *     cpu_nodes_read(&nodes, "", cpu_allowed());
 *     cpu_nodes_bind(&nodes, thread, n_threads);        // on each thread
 *
 * Threads are shared out over the nodes as CPUs are, in order: neighbours are near each other. */
#ifndef STOWKV_CPU_NODES_H
#define STOWKV_CPU_NODES_H

#include "base/machine/cpu_list.h"

#include <stddef.h>
#include <stdint.h>

typedef struct CpuNodes {
    size_t n_nodes; /* that have CPUs which the process may use; 1 where the system tells of none */
    size_t n_cpus;
    uint16_t cpu[CPU_MAX], node[CPU_MAX]; /* (n_cpus) ordered by node; the kernel's numbers */
} CpuNodes;

/* `root` is put before "/sys": "" outside tests. */
void cpu_nodes_read(CpuNodes *out, const char *root, const bool allowed[CPU_MAX]);

/* The node of a thread, by the kernel's number. */
int cpu_nodes_of_thread(const CpuNodes *nodes, int thread, int n_threads);

/* Keeps the calling thread on the CPUs of its node. Does nothing with one node, or where the system refuses. */
void cpu_nodes_bind(const CpuNodes *nodes, int thread, int n_threads);

#endif
