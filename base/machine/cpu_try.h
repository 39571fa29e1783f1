/* A probe of an instruction set: run it once where nothing depends on it, and see whether the processor obeys.
 *
 *     static bool probe(void) { … }                 // true where what it computed is right
 *     if (cpu_try(probe)) …                         // false too where it hit an illegal instruction
 */
#ifndef STOWKV_CPU_TRY_H
#define STOWKV_CPU_TRY_H

#include <stdbool.h>

/* The probe only computes: it must hold nothing (a lock, memory) that would be lost where it is cut off. */
typedef bool CpuProbe(void);

bool cpu_try(CpuProbe *probe);

#endif
