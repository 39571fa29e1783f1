/* Whether the processor executes an instruction set: runs a probe once and survives an illegal instruction in it.
 *
 *     static bool probe(void) { … }                 // true where what it computed is right
 *     if (cpu_try(probe)) …                         // false too where it hit an illegal instruction
 */
#ifndef STOWKV_CPU_TRY_H
#define STOWKV_CPU_TRY_H

#include <stdbool.h>

/* Must only compute: an illegal instruction ends it at once, and a lock or memory that it held would be lost. */
typedef bool CpuProbe(void);

bool cpu_try(CpuProbe *probe);

#endif
