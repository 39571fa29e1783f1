/* Choice of the attention kernel; see attention.h. */
#include "attention/attention.h"

#include "attention/attend.h"

Attend *attention_kernel(SimdLevel level) {
    static Attend *const KERNELS[SIMD_LEVEL_COUNT] = SIMD_TABLE(attend);
    return KERNELS[level];
}
