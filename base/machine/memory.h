/* How much memory this machine has for a program, and how much of it its caches hold. */
#ifndef STOWKV_MEMORY_H
#define STOWKV_MEMORY_H

#include <stddef.h>

/* Bytes of all caches of the last level, from sysfs; 0: not known. */
size_t memory_cache_bytes(void);

/* Bytes that can be taken without swapping, and within a container's limit. */
size_t memory_available(void);

#endif
