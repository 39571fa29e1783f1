/* Weights and activations in FP16, as the tensor cores take them.
 *
 * FP16 ends at 65504, and loses bits below 2^-14. So both are multiplied by powers of two first, which is exact: a
 * matrix by one that brings its largest weight to [2^14, 2^15), each token by its own, and that only where its largest
 * activation is beyond [2^-4, 2^15). What is a factor 2^29 smaller than the largest still has FP16's 11 bits then; what
 * is smaller yet is off by 2^-39 of the largest weight, by 2^-21 of the largest activation at most. */
#ifndef STOWKV_CUDA_DEQUANTIZE_H
#define STOWKV_CUDA_DEQUANTIZE_H

#include "cuda/matrix.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Elements from one row to the next: rows are aligned to 16 bytes. */
size_t cuda_half_stride(size_t n_columns);

/* Raises *largest to the bits of the largest |w|; those of a number that is not finite are above all others. */
void cuda_find_largest(const CudaMatrix *w,
                       uint32_t *largest, // (1) device
                       cudaStream_t stream);

/* The factor that brings a number of these bits to [2^14, 2^15), as far as F32 goes; 1 for what is not finite. */
float cuda_half_factor(uint32_t largest);

/* Panels from first_panel on, times w->half_factor; what fills rows up is zero. */
void cuda_dequantize(const CudaMatrix *w, size_t first_panel, size_t n_panels,
                     uint16_t *halves, // (n_panels, PANEL_ROWS, cuda_half_stride(n_columns))
                     cudaStream_t stream);

/* A token that is not finite stays so, and has factor 1. */
void cuda_halve_tokens(const float *x, // (n_tokens, n_columns)
                       size_t n_tokens, size_t n_columns,
                       uint16_t *halves, // (n_tokens, cuda_half_stride(n_columns)); what fills rows up is zero
                       float *inverses,  // (n_tokens) 1 / factor
                       cudaStream_t stream);

/* y = inverse * y + bias */
void cuda_undo_factors(float *y,              // (n_tokens, n_rows)
                       const float *bias,     // (n_rows); NULL: none
                       const float *inverses, // (n_tokens)
                       size_t n_tokens, size_t n_rows, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
