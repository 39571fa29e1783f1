/* A model without a file: random weights of any shape, made in a device's memory. Its text is nonsense, its speed that
 * of a real one.
 *
 *     Model model;
 *     SyntheticModel synthetic;
 *     if (synthetic_model_open(&synthetic, &model, backend, &SYNTHETIC_LLAMA_3_8B, TYPE_F16, &error) < 0) …
 *     … context_open(&context, &model, …), forward(&context, …) …
 *     synthetic_model_close(&synthetic, &model);                       // and the backend
 */
#ifndef STOWKV_SYNTHETIC_MODEL_H
#define STOWKV_SYNTHETIC_MODEL_H

#include "cuda/matrix.h"
#include "model/model.h"

typedef struct SyntheticModel {
    CudaMatrix *matrices; /* (n_tensors) of roles; those of vectors are unused */
    size_t n_tensors;
    void **memory; /* (n_tensors) device, owned */
    size_t n_memory, size_bytes;
} SyntheticModel;

extern const ModelConfig SYNTHETIC_LLAMA_3_8B, SYNTHETIC_TINY;

/* `backend` must be CUDA's; the model owns it, also where opening fails. Matrices are of `type`, whatever the backend's
 * products take. ERROR_MEMORY where the device has too little. */
int synthetic_model_open(SyntheticModel *synthetic, Model *model, Backend *backend, const ModelConfig *config,
                         TensorType type, Error *error);
void synthetic_model_close(SyntheticModel *synthetic, Model *model);

#endif
