/* The CPU as a backend; model/backend.h says what it does. */
#ifndef STOWKV_CPU_BACKEND_H
#define STOWKV_CPU_BACKEND_H

#include "model/backend.h"

/* n_threads 0: one for each physical core that the process may use. */
int cpu_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error);

/* The form of records that it reads: for a plan of memory, which needs no backend. */
const KvRecordForm *cpu_backend_records(void);

#endif
