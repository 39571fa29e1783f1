/* The CUDA backend's weights: matrices in the packed form of model/packed_matrix.h, in device memory.
 *
 *     CudaWeights weights;
 *     cuda_weights_open(&weights, pool, stream);
 *     if (cuda_weights_announce(&weights, tensors, n, TENSOR_MATRIX, &error) < 0) …  // all that will be uploaded
 *     if (cuda_weights_upload(&weights, tensors, n, TENSOR_MATRIX, &error) < 0) …    // sets their `uploaded`
 *     if (cuda_weights_ready(&weights, &error) < 0) …                                // once all are uploaded
 *     const CudaMatrix *w = tensors[0]->uploaded;
 *     cuda_weights_close(&weights);
 *
 * A lane of a warp that loads 16 bytes of a panel's codes has four rows of one step, so that each activation it reads
 * meets four weights. Matrices are packed by the threads of the pool, a piece at a time, while the piece before is on
 * its way to the device: the host never holds a second copy of a large one. */
#ifndef STOWKV_CUDA_WEIGHTS_H
#define STOWKV_CUDA_WEIGHTS_H

#include "base/machine/thread_pool.h"
#include "checkpoints/roles.h"
#include "cuda/matrix.h"

#include <cuda_runtime_api.h>

#define CUDA_WEIGHT_ALIGNMENT 256 /* bytes */

/* Pinned memory of the host, from which a copy may be under way. */
typedef struct CudaPiece {
    uint8_t *memory;    /* (piece_bytes) */
    cudaEvent_t copied; /* the last copy from it is through */
} CudaPiece;

typedef struct CudaWeights {
    ThreadPool *pool;      /* not owned */
    cudaStream_t stream;   /* not owned */
    CudaMatrix **matrices; /* (n_matrices) owned; their data is the arena's */
    size_t n_matrices;
    uint8_t *arena;      /* (size_bytes) owned, in device memory; NULL before the first upload */
    size_t size_bytes;   /* of all that was announced, each tensor aligned to CUDA_WEIGHT_ALIGNMENT */
    size_t taken_bytes;  /* of those, by uploads */
    CudaPiece pieces[2]; /* filled in turn; there are none before the first upload and after cuda_weights_ready() */
    size_t piece_bytes;  /* becomes that of a panel where it is less */
    int next_piece;
} CudaWeights;

void cuda_weights_open(CudaWeights *weights, ThreadPool *pool, cudaStream_t stream);
void cuda_weights_close(CudaWeights *weights); /* once no kernel reads them */

/* Makes room for tensors in the one piece of device memory that the first upload allocates. */
int cuda_weights_announce(CudaWeights *weights, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);

/* Of tensors that were announced. Sets each tensor's `uploaded`, which `weights` owns: a CudaMatrix of the host for
 * TENSOR_MATRIX and TENSOR_ROWS, an array of F32 in device memory for TENSOR_VECTOR. Kernels of the stream may read
 * them at once. ERROR_MEMORY, ERROR_IO where the device fails. */
int cuda_weights_upload(CudaWeights *weights, Tensor *const *tensors, size_t n_tensors, TensorUse use, Error *error);

/* Waits for all copies, and lets go of what only uploads need. Uploading again after it is fine. */
int cuda_weights_ready(CudaWeights *weights, Error *error);

#endif
