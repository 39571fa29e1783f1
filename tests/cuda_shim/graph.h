/* Streams of the simulated runtime, and what is captured of them. */
#ifndef STOWKV_CUDA_SHIM_GRAPH_H
#define STOWKV_CUDA_SHIM_GRAPH_H

#include "tests/cuda_shim/device.h"

struct CUstream_st {
    unsigned mark;
    cudaGraph_t captured; /* owned; NULL: work is done at once */
};

/* Streams that are captured now. */
int cuda_shim_n_captured(void);

#endif
