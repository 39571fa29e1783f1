/* The host's variants of per-channel INT8, a ChannelDevice of device.h: what is published as a baseline, a plain loop,
 * and vectors on all threads for each instruction set that runs here. */
#ifndef STOWKV_CHANNEL_CPU_H
#define STOWKV_CHANNEL_CPU_H

#include "channel_int8/device.h"

int channel_cpu_open(ChannelDevice **out, int n_threads, Error *error);

/* Memory in huge pages where there are such, zeroed, not touched. NULL with an error. */
void *channel_map(size_t size_bytes, const char *what, Error *error);
void channel_unmap(void *memory, size_t size_bytes); /* NULL is fine */

#endif
