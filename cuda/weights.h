/* The CUDA backend's weights: matrices in the packed form of model/packed_matrix.h, in device memory.
 *
 *     CudaWeights weights;
 *     cuda_weights_open(&weights, pool);
 *     if (cuda_weights_upload(&weights, tensors, n, TENSOR_MATRIX, &error) < 0) …    // sets their `uploaded`
 *     const CudaMatrix *w = tensors[0]->uploaded;
 *     cuda_weights_close(&weights);
 *
 * A lane of a warp that loads 16 bytes of a panel's codes has four rows of one step, so that each activation it reads
 * meets four weights. Matrices are packed by the threads of the pool, a few panels at a time: the host never holds a
 * second copy of a large one. */
#ifndef STOWKV_CUDA_WEIGHTS_H
#define STOWKV_CUDA_WEIGHTS_H

#include "base/machine/thread_pool.h"
#include "checkpoints/roles.h"
#include "cuda/matrix.h"

typedef struct CudaWeights {
    ThreadPool *pool;      /* not owned */
    CudaMatrix **matrices; /* (n_matrices) owned, and their data */
    float **vectors;       /* (n_vectors) owned, in device memory */
    size_t n_matrices, n_vectors;
    size_t size_bytes;    /* of device memory */
    size_t staging_bytes; /* packed at a time; one panel where that is more */
} CudaWeights;

void cuda_weights_open(CudaWeights *weights, ThreadPool *pool);
void cuda_weights_close(CudaWeights *weights); /* once no kernel reads them */

/* Sets each tensor's `uploaded`, which `weights` owns: a CudaMatrix of the host for TENSOR_MATRIX and TENSOR_ROWS, an
 * array of F32 in device memory for TENSOR_VECTOR. ERROR_MEMORY, ERROR_IO where the device fails. */
int cuda_weights_upload(CudaWeights *weights, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);

#endif
