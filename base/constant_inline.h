/* CONSTANT_INLINE: a function in a header whose result is a constant where its arguments are. CUDA's kernels, which are
 * C++, call it in constant expressions. */
#ifndef STOWKV_CONSTANT_INLINE_H
#define STOWKV_CONSTANT_INLINE_H

#if defined(__CUDACC__)
#define CONSTANT_INLINE __host__ __device__ constexpr
#elif defined(__cplusplus)
#define CONSTANT_INLINE constexpr
#else
#define CONSTANT_INLINE static inline __attribute__((always_inline))
#endif

#endif
