/* The CPU as a backend of model/backend.h. */
#ifndef STOWKV_CPU_BACKEND_H
#define STOWKV_CPU_BACKEND_H

#include "model/backend.h"

/* n_threads 0: one for each physical core that the process may use. `level` must run here (base/simd/detect.h). The
 * caller closes it with (*out)->ops->close(). */
int cpu_backend_open(Backend **out, SimdLevel level, int n_threads, Error *error);

/* The form of records that this backend reads, without opening one, for memory plans. */
const KvRecordForm *cpu_backend_records(void);

#endif
