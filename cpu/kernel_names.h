/* What the CPU's kernels are called in reports: operation, type, path, instruction set. */
#ifndef STOWKV_KERNEL_NAMES_H
#define STOWKV_KERNEL_NAMES_H

#include "model/backend.h"

void cpu_name_matmul(const Backend *backend, const Tensor *w, size_t n_tokens, char name[KERNEL_NAME_BYTES]);
void cpu_name_attention(const Backend *backend, KvCodecId codec, const KvCacheLayout *layout,
                        char name[KERNEL_NAME_BYTES]);

#endif
