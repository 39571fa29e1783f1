/* Kernels that test tests/cuda_shim/ and the primitives on it (tests/test_cuda_shim.c). */
#include "tests/cuda_shim_cases.h"

#include "cuda/primitives.cuh"

__global__ static void warp_kernel(const float *in, WarpResults *results) {
    int lane = threadIdx.x;
    float v = in[lane];
    results->xor_5[lane] = warp_xor(v, 5);
    results->broadcast_7[lane] = warp_broadcast(v, 7);
    results->gathered[lane] = warp_broadcast(v, (3 * lane + 1) % 32);
    results->sum[lane] = warp_sum(v);
    results->max[lane] = warp_max(v);
}

void launch_warp(const float *in, WarpResults *results) {
    CUDA_LAUNCH(warp_kernel, dim3(1), dim3(32), 0, 0, in, results);
}

__device__ static uint32_t pair_at(const uint16_t *p, size_t stride) {
    return p[0] | (uint32_t)p[stride] << 16;
}

__global__ static void mma_kernel(const uint16_t *a, const uint16_t *b, float *d) {
    int g = threadIdx.x / 4, j = threadIdx.x % 4;
    const uint16_t *upper = a + g * 16 + 2 * j, *lower = upper + 8 * 16, *left = b + 2 * j * 8 + g;
    float *row = d + g * 8 + 2 * j;
    float sums[4] = {row[0], row[1], row[64], row[65]};
    mma_16x8x16(sums, pair_at(upper, 1), pair_at(lower, 1), pair_at(upper + 8, 1), pair_at(lower + 8, 1),
                pair_at(left, 8), pair_at(left + 64, 8));
    row[0] = sums[0];
    row[1] = sums[1];
    row[64] = sums[2];
    row[65] = sums[3];
}

void launch_mma(const uint16_t *a, const uint16_t *b, float *d) {
    CUDA_LAUNCH(mma_kernel, dim3(1), dim3(32), 0, 0, a, b, d);
}

__global__ static void transpose_kernel(const uint16_t *in, uint16_t *out) {
    uint32_t pair = transpose_8x8(pair_at(in + 2 * threadIdx.x, 1));
    out[2 * threadIdx.x] = (uint16_t)pair;
    out[2 * threadIdx.x + 1] = (uint16_t)(pair >> 16);
}

void launch_transpose(const uint16_t *in, uint16_t *out) {
    CUDA_LAUNCH(transpose_kernel, dim3(1), dim3(32), 0, 0, in, out);
}

__global__ static void pairs_kernel(const uint32_t *a, const uint32_t *b, const uint32_t *c, PairResults *results,
                                    size_t n) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        results[i] = {half2_add(a[i], b[i]), half2_sub(a[i], b[i]), half2_mul(a[i], b[i]), half2_fma(a[i], b[i], c[i])};
}

void launch_pairs(const uint32_t *a, const uint32_t *b, const uint32_t *c, PairResults *results, size_t n) {
    CUDA_LAUNCH(pairs_kernel, dim3((unsigned)((n + 255) / 256)), dim3(256), 0, 0, a, b, c, results, n);
}

__global__ static void halves_kernel(float *values, uint16_t *back) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    values[i] = half_to_f32((uint16_t)i);
    uint32_t pair = half2_from_f32(values[i], half2_high(i << 16));
    back[i] = f32_to_half(values[i]);
    if (pair != back[i] * 0x10001u || (half2_low(i) != values[i] && i % 0x8000 <= 0x7c00))
        back[i] = 0x5555;
}

void launch_halves(float *values, uint16_t *back) {
    CUDA_LAUNCH(halves_kernel, dim3(256), dim3(256), 0, 0, values, back);
}

__global__ static void bytes_kernel(uint32_t a, uint32_t b, uint32_t selector, uint32_t *permuted, int *dot) {
    *permuted = byte_permute(a, b, selector);
    *dot = dot_4x8((int)a, (int)b, (int)selector);
}

void launch_bytes(uint32_t a, uint32_t b, uint32_t selector, uint32_t *permuted, int *dot) {
    CUDA_LAUNCH(bytes_kernel, dim3(1), dim3(1), 0, 0, a, b, selector, permuted, dot);
}

__global__ static void places_kernel(uint32_t *places) {
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    atomicAdd(places + block * 24 + thread, block * 24 + thread + 1);
}

void launch_places(uint32_t *places) {
    CUDA_LAUNCH(places_kernel, dim3(3, 2, 2), dim3(4, 3, 2), 0, 0, places);
}

template <bool with_barrier> __global__ void block_sums_kernel(const float *in, float *sums) {
    CUDA_SHARED(float, warp_sums, [8]);
    float sum = warp_sum(in[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x % 32 == 0)
        warp_sums[threadIdx.x / 32] = sum;
    if (with_barrier)
        __syncthreads();
    if (threadIdx.x != 100)
        return;
    float all = 0;
    for (int warp = 0; warp < 8; warp++)
        all += warp_sums[warp];
    sums[blockIdx.x] = all;
}

void launch_block_sums(const float *in, float *sums, unsigned n_blocks, bool with_barrier) {
    if (with_barrier)
        CUDA_LAUNCH((block_sums_kernel<true>), dim3(n_blocks), dim3(256), 0, 0, in, sums);
    else
        CUDA_LAUNCH((block_sums_kernel<false>), dim3(n_blocks), dim3(256), 0, 0, in, sums);
}

__global__ static void counter_kernel(unsigned *counter, unsigned *last) {
    unsigned before = atomicInc(counter, gridDim.x - 1);
    if (before == gridDim.x - 1)
        *last = before;
}

void launch_counter(unsigned *counter, unsigned *last, unsigned n_blocks) {
    CUDA_LAUNCH(counter_kernel, dim3(n_blocks), dim3(1), 0, 0, counter, last);
}

__global__ static void chain_kernel(unsigned *results) {
    results[blockIdx.x] = blockIdx.x + (blockIdx.x ? results[blockIdx.x - 1] : 0);
}

void launch_chain(unsigned *results, unsigned n_blocks) {
    CUDA_LAUNCH(chain_kernel, dim3(n_blocks), dim3(1), 0, 0, results);
}

__global__ static void stale_kernel(float *seen) {
    CUDA_SHARED(float, value);
    CUDA_DYNAMIC_SHARED(float, values);
    seen[2 * blockIdx.x] = value;
    seen[2 * blockIdx.x + 1] = values[1];
    value = values[1] = 5;
}

void launch_stale(float *seen, unsigned n_blocks) {
    CUDA_LAUNCH(stale_kernel, dim3(n_blocks), dim3(1), 8, 0, seen);
}

/* Each lane writes what its neighbour copied. */
template <int n_left> __global__ void copy_kernel(const uint4 *in, uint4 *out, int n, int n_valid) {
    CUDA_SHARED(uint4, rows, [2][32]);
    int lane = threadIdx.x, neighbour = (lane + 1) % 32;
    for (int i = 0; i < 2; i++) {
        if (i < n)
            copy_16_async(&rows[i][lane], in + i * 32 + lane, i < n_valid);
        copy_commit();
    }
    for (int i = 0; i < n; i++) {
        copy_wait<n_left>();
        __syncwarp();
        out[i * 32 + neighbour] = rows[i % 2][neighbour];
        __syncwarp();
        if (i + 2 < n)
            copy_16_async(&rows[i % 2][lane], in + (i + 2) * 32 + lane, i + 2 < n_valid);
        copy_commit();
    }
}

void launch_copy(const uint32_t *in, uint32_t *out, int n, int n_valid, int n_left) {
    const uint4 *from = reinterpret_cast<const uint4 *>(in);
    uint4 *to = reinterpret_cast<uint4 *>(out);
    if (n_left == 1)
        CUDA_LAUNCH(copy_kernel<1>, dim3(1), dim3(32), 0, 0, from, to, n, n_valid);
    else
        CUDA_LAUNCH(copy_kernel<2>, dim3(1), dim3(32), 0, 0, from, to, n, n_valid);
}

__global__ static void through_shared_kernel(const float *in, float *out, int n) {
    CUDA_DYNAMIC_SHARED(float, values);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        values[n - 1 - i] = in[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = values[n - 1 - i];
}

void launch_through_shared(const float *in, float *out, int n, size_t shared_bytes, cudaStream_t stream) {
    CUDA_LAUNCH(through_shared_kernel, dim3(1), dim3(64), shared_bytes, stream, in, out, n);
}

cudaError_t raise_shared(int size_bytes) {
    return cudaFuncSetAttribute(through_shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, size_bytes);
}

__device__ static int deep(volatile int *above, int depth) {
    volatile int here[256];
    here[depth % 256] = depth + above[depth % 256];
    return depth > 0 ? deep(here, depth - 1) + here[depth % 256] : here[0];
}

__global__ static void fault_kernel(Fault fault, float *memory) {
    CUDA_SHARED(float, values, [33]);
    volatile int zeros[256] = {0};
    int thread = threadIdx.x;
    float *first = values; // of 33, says no type
    values[thread % 33] = 1;
    switch (fault) {
    case FAULT_DIVERGENT_BARRIER:
        if (thread < 32)
            __syncthreads();
        else
            __syncthreads();
        break;
    case FAULT_BARRIER_OF_SOME:
        if (thread < 40)
            __syncthreads();
        break;
    case FAULT_RETURN_BEFORE_BARRIER:
        if (thread == 0)
            return;
        __syncthreads();
        break;
    case FAULT_DIVERGENT_SHUFFLE:
        memory[thread] = thread % 2 ? warp_xor(1.f, 1) : warp_broadcast(2.f, 1);
        break;
    case FAULT_SHUFFLE_OF_SOME:
        if (thread % 32 < 16)
            memory[thread] = warp_sum(1);
        break;
    case FAULT_RETURN_BEFORE_SHUFFLE:
        if (thread == 0)
            return;
        memory[thread] = warp_sum(1);
        break;
    case FAULT_SHUFFLE_AND_BARRIER:
        if (thread % 32 < 16)
            memory[thread] = warp_sum(1);
        else
            __syncthreads();
        break;
    case FAULT_PART_OF_A_WARP:
        memory[thread] = warp_max(1);
        break;
    case FAULT_MISALIGNED_LOAD:
        memory[thread] = f32_from_bits(load_8(memory + 1).x);
        break;
    case FAULT_COPY_OUT_OF_SHARED:
        copy_16_async(values + 32, memory, true);
        break;
    case FAULT_STATIC_SHARED_BOUNDS:
        first[thread] = 1;
        break;
    case FAULT_STACK:
        memory[thread] = deep(zeros, 1000);
        break;
    default:
        break;
    }
}

void launch_fault(Fault fault, float *memory) {
    unsigned n_threads = fault == FAULT_BLOCK_SIZE ? 1025 : fault == FAULT_PART_OF_A_WARP ? 48 : 64;
    size_t shared_bytes = fault == FAULT_SHARED_SIZE ? 48 << 10 : 0;
    CUDA_LAUNCH(fault_kernel, dim3(2), dim3(n_threads), shared_bytes, 0, fault, memory);
}
