/* A weight matrix in device memory, as kernels take it: by value. Its panels are those of model/packed_matrix.h. */
#ifndef STOWKV_CUDA_MATRIX_H
#define STOWKV_CUDA_MATRIX_H

#include "base/tensor.h"

typedef struct CudaMatrix {
    TensorType type; /* of the packed form */
    size_t n_columns, n_rows;
    size_t panel_bytes;
    const uint8_t *panels; /* (panels of 16 rows, panel_bytes) in device memory, aligned to 64 */
    float half_factor;     /* power of two that makes FP16 of the weights: cuda_products_reserve() sets it */
} CudaMatrix;

#endif
