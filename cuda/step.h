/* What the host tells the device of a batch, and what it is told of greedy generation; and the recording of a step: the
 * launches for one token are the same each time, so they become a CUDA graph, which costs one call instead of some
 * hundred.
 *
 *     if (!cuda_batch_begin(&batches, tokens, n_tokens, position, &step)) {
 *         … launches …                                    // they read *batches.input->position
 *         cuda_batch_end(&batches);
 *     }
 */
#ifndef STOWKV_CUDA_STEP_H
#define STOWKV_CUDA_STEP_H

#include "base/error.h"
#include "cuda/best.h"
#include "cuda/device.h"

#include <stdbool.h>
#include <stdint.h>

/* A batch's tokens and the position of the first of them. */
typedef struct CudaInput {
    size_t position;
    int32_t tokens[]; /* (n_tokens) */
} CudaInput;

typedef struct BackendStep BackendStep; /* a graph, or that there will be one */

typedef struct CudaBatches {
    cudaStream_t stream;
    CudaInput *host;     /* pinned, owned: what the device copies when its turn comes */
    CudaInput *input;    /* device, owned */
    size_t n_max;        /* tokens that they have room for */
    cudaEvent_t copied;  /* owned: the host may write again */
    CudaBest *best;      /* device, owned */
    CudaBest *host_best; /* pinned, owned: its copy */
    BackendStep *record; /* under way; NULL: none */
    cudaEvent_t *marks;  /* (n_marks) of cuda_batch_mark(), owned; none unless somebody times calls */
    size_t n_marks;
    cudaError_t failure; /* the first of the functions that cannot tell */
} CudaBatches;

int cuda_batches_open(CudaBatches *batches, cudaStream_t stream, Error *error);
void cuda_batches_close(CudaBatches *batches);

/* Room for n_tokens. Steps that were recorded before are recorded anew. */
int cuda_batches_reserve(CudaBatches *batches, CudaDevice *device, size_t n_tokens, Error *error);

/* Returns true where the step was recorded, and is now done again. `step` NULL: do not record. */
bool cuda_batch_begin(CudaBatches *batches, const int32_t *tokens, size_t n_tokens, size_t position,
                      BackendStep **step);
void cuda_batch_end(CudaBatches *batches);

/* Before the batch ends: the most likely of n tokens, by their logits in device memory. It is on its way to the host,
 * and once the stream is through *host_best has it. */
void cuda_batch_find_best(CudaBatches *batches, const float *logits, size_t n);

/* Has the stream note when it has come here, in a recorded step each time; and the seconds between two such times, once
 * the second has come. */
void cuda_batch_mark(CudaBatches *batches, size_t index);
int cuda_batch_elapsed(CudaBatches *batches, size_t from, size_t to, double *seconds, Error *error);

void cuda_step_close(BackendStep *step); /* NULL is fine */

#endif
