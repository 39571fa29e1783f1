/* All of the kernels that is not plain C++: launches, shared memory, FP16 arithmetic and PTX instructions. Kernels use
 * what is here, and CUDA's own threadIdx, __syncthreads() …, and nothing else that only nvcc knows: the same sources
 * are then compiled by a C++ compiler against tests/cuda_shim/, where every thread of a kernel runs on the host. FP16
 * values are uint16_t bits, pairs of them uint32_t with element 0 in the low half.
 *
 *     __global__ void kernel(const float *x, size_t n) {
 *         CUDA_SHARED(float, sums, [8][32]);
 *         CUDA_DYNAMIC_SHARED(float4, tile);
 *         …
 *     }
 *     CUDA_LAUNCH(kernel, dim3(n_blocks), dim3(256), tile_bytes, stream, x, n);
 *     CUDA_LAUNCH((kernel_of<8, true>), …);
 *
 * Architectures from sm_75 on. What sm_75 lacks, asynchronous copies and the products of 16 columns, is made there of
 * what it has. */
#ifndef STOWKV_CUDA_PRIMITIVES_CUH
#define STOWKV_CUDA_PRIMITIVES_CUH

#ifdef STOWKV_CUDA_SHIM
#include "tests/cuda_shim/primitives.h"
#else

#include <cuda_runtime.h>
#include <stdint.h>

#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                    \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

/* Both kinds of shared memory are aligned to 16 bytes, whatever the type. */
#define CUDA_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
#define CUDA_DYNAMIC_SHARED(type, name)                                                                                \
    extern __shared__ __align__(16) unsigned char name##_bytes[];                                                      \
    type *name = reinterpret_cast<type *>(name##_bytes)

/* Loads from device memory that nothing writes while the kernel runs, past the L1 cache: what is read once would only
 * drive out what is read again. p is aligned to the size. */
__device__ __forceinline__ uint4 load_16(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

__device__ __forceinline__ uint2 load_8(const void *p) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

__device__ __forceinline__ uint32_t load_4(const void *p) {
    uint32_t v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

/* The last load of what was loaded before, and stores of what nobody reads soon: the L2 cache gives them up first. p is
 * aligned to the size. */
__device__ __forceinline__ uint4 load_16_last(const void *p) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

__device__ __forceinline__ void store_16_streaming(void *p, uint4 v) {
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

__device__ __forceinline__ void store_8_streaming(void *p, uint2 v) {
    asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(v.x), "r"(v.y) : "memory");
}

__device__ __forceinline__ void store_4_streaming(void *p, uint32_t v) {
    asm volatile("st.global.cs.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

__device__ __forceinline__ float f32_from_bits(uint32_t bits) {
    return __uint_as_float(bits);
}

__device__ __forceinline__ uint32_t f32_bits(float x) {
    return __float_as_uint(x);
}

__device__ __forceinline__ float half_to_f32(uint16_t half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
    return x;
}

/* To nearest, ties to even. */
__device__ __forceinline__ uint16_t f32_to_half(float x) {
    uint16_t half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

__device__ __forceinline__ uint32_t half2_from_f32(float low, float high) {
    uint32_t pair;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    pair = f32_to_half(low) | (uint32_t)f32_to_half(high) << 16;
#endif
    return pair;
}

/* Arithmetic of pairs rounds each element once: .rn keeps products and sums apart. */
__device__ __forceinline__ uint32_t half2_add(uint32_t a, uint32_t b) {
    uint32_t sum;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
    return sum;
}

__device__ __forceinline__ uint32_t half2_sub(uint32_t a, uint32_t b) {
    uint32_t difference;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}

__device__ __forceinline__ uint32_t half2_mul(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

/* a * b + c */
__device__ __forceinline__ uint32_t half2_fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}

/* Byte i of the result is byte (selector >> 4 * i & 7) of b:a, a being bytes 0 to 3; with bit 3 of that nibble, the
 * byte's sign in all bits. */
__device__ __forceinline__ uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
}

/* c and the products of four pairs of signed bytes */
__device__ __forceinline__ int dot_4x8(int a, int b, int c) {
    return __dp4a(a, b, c);
}

/* 2^x to 2 ulp; subnormal results are zero. */
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* What follows is done by a warp together: all 32 lanes call it at one place. */

/* v of lane (own lane ^ mask) */
template <typename T> __device__ __forceinline__ T warp_xor(T v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

/* v of a lane */
template <typename T> __device__ __forceinline__ T warp_broadcast(T v, int lane) {
    return __shfl_sync(0xffffffffu, v, lane);
}

/* The sum of all lanes' v, the same bits in every lane */
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
        v += warp_xor(v, mask);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
        v = fmaxf(v, warp_xor(v, mask));
    return v;
}

/* D += A B of A (16, 16) and B (16, 8) in FP16, D (16, 8) in F32. Lane 4 g + j holds, as (row, column):
 * a0 A(g, 2 j) and the next column; a1 8 rows below, a2 8 columns to the right, a3 both;
 * b0 B(2 j, g) and the next row; b1 8 rows below;
 * d[0], d[1] D(g, 2 j) and the next column; d[2], d[3] 8 rows below. */
__device__ __forceinline__ void mma_16x8x16(float d[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                            uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a2), "r"(a3), "r"(b1));
#endif
}

/* The transpose of 8x8 values of 16 bits: lane 4 g + j holds row g, columns 2 j and 2 j + 1, before and after. */
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t v) {
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(v));
    return result;
}

/* Copies 16 bytes from device to shared memory, or zeros where not valid (`global` is not read then). They are there
 * for the thread itself after copy_wait, for others after a barrier behind that. */
__device__ __forceinline__ void copy_16_async(void *shared, const void *global, bool valid) {
#if __CUDA_ARCH__ >= 800
    uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *static_cast<uint4 *>(shared) = valid ? *static_cast<const uint4 *>(global) : make_uint4(0, 0, 0, 0);
#endif
}

/* Closes a group: the copies since the last one. */
__device__ __forceinline__ void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until at most the N youngest groups are under way. */
template <int N> __device__ __forceinline__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif

__device__ __forceinline__ float bf16_to_f32(uint16_t bf16) {
    return f32_from_bits((uint32_t)bf16 << 16);
}

__device__ __forceinline__ float half2_low(uint32_t pair) {
    return half_to_f32((uint16_t)pair);
}

__device__ __forceinline__ float half2_high(uint32_t pair) {
    return half_to_f32((uint16_t)(pair >> 16));
}

#endif
