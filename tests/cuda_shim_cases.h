/* Kernels of tests/cuda_shim_cases.cu for tests/test_cuda_shim.c: what each primitive gives, and faults that the shim
 * has to find. All memory is the host's but where it says otherwise. */
#ifndef STOWKV_TESTS_CUDA_SHIM_CASES_H
#define STOWKV_TESTS_CUDA_SHIM_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct WarpResults {
    float xor_5[32];
    float broadcast_7[32];
    float gathered[32]; /* of lane 3 * own + 1, modulo 32 */
    float sum[32];
    float max[32];
} WarpResults;

void launch_warp(const float *in /* (32) */, WarpResults *results);

void launch_mma(const uint16_t *a, /* (16, 16) FP16 */
                const uint16_t *b, /* (16, 8) FP16 */
                float *d);         /* (16, 8), added to */
void launch_transpose(const uint16_t *in /* (8, 8) */, uint16_t *out /* (8, 8) */);

typedef struct PairResults {
    uint32_t sum, difference, product, fused;
} PairResults;

void launch_pairs(const uint32_t *a, const uint32_t *b, const uint32_t *c, /* (n) each, of two FP16 */
                  PairResults *results,                                    /* (n) */
                  size_t n);
void launch_halves(float *values /* (65536) of all FP16 */, uint16_t *back /* (65536) */);
void launch_bytes(uint32_t a, uint32_t b, uint32_t selector, uint32_t *permuted, int *dot /* of a, b and selector */);

/* The place of each thread in blocks of (4, 3, 2) threads on a grid of (3, 2, 2): 24 * 12 numbers of block * 24 +
 * thread */
void launch_places(uint32_t *places);

/* Sums of 256 numbers a block through shared memory; without its barrier it is wrong */
void launch_block_sums(const float *in /* (n_blocks, 256) */, float *sums /* (n_blocks) */, unsigned n_blocks,
                       bool with_barrier);

/* Counts blocks; the last one tells, in *last, the count before it. The counter wraps to 0. */
void launch_counter(unsigned *counter, unsigned *last, unsigned n_blocks);

/* Each block adds its number to the result of the block before: right in no order but one. */
void launch_chain(unsigned *results /* (n_blocks) */, unsigned n_blocks);

/* What each block finds in static and dynamic shared memory; it leaves numbers there. */
void launch_stale(float *seen /* (n_blocks, 2) */, unsigned n_blocks);

/* Copies n rows of 32 * 16 bytes through two rows of shared memory, each waited for until n_left are under way: 1 is
 * right. Rows from n_valid on are zeros. */
void launch_copy(const uint32_t *in /* (n, 128) */, uint32_t *out /* (n, 128) */, int n, int n_valid, int n_left);

/* Copies n floats; past the end of shared memory where there are fewer bytes than n need. */
void launch_through_shared(const float *in, float *out, int n, size_t shared_bytes, cudaStream_t stream);

typedef enum Fault {
    FAULT_DIVERGENT_BARRIER,
    FAULT_BARRIER_OF_SOME,
    FAULT_RETURN_BEFORE_BARRIER,
    FAULT_DIVERGENT_SHUFFLE,
    FAULT_SHUFFLE_OF_SOME,
    FAULT_RETURN_BEFORE_SHUFFLE,
    FAULT_SHUFFLE_AND_BARRIER,
    FAULT_PART_OF_A_WARP,
    FAULT_MISALIGNED_LOAD,
    FAULT_COPY_OUT_OF_SHARED,
    FAULT_STATIC_SHARED_BOUNDS,
    FAULT_BLOCK_SIZE,
    FAULT_SHARED_SIZE,
    FAULT_STACK,
    N_FAULTS
} Fault;

void launch_fault(Fault fault, float *memory /* (64) */);

/* cudaFuncSetAttribute() for launch_through_shared() */
cudaError_t raise_shared(int size_bytes);

#ifdef __cplusplus
}
#endif

#endif
