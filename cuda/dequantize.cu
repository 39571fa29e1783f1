/* FP16 of packed weights and of activations; see dequantize.h. Warps have eight rows of a block of 32 columns: what
 * they load and what they store are whole sectors of 32 bytes. Values are the decoder's (base/block_decode.c), which
 * nvcc keeps with --fmad=false, and are rounded to FP16 once. */
#include "cuda/dequantize.h"

#include "cuda/packed_panel.cuh"
#include "cuda/primitives.cuh"

namespace {

constexpr int n_threads = 256, warp_lanes = 32;
constexpr int chunk = 8, block_chunks = PACKED_BLOCK / chunk;                         /* columns of a thread */
constexpr int group_columns = n_threads / (PANEL_ROWS * block_chunks) * PACKED_BLOCK; /* of a block of threads */
constexpr int undone_rows = 8 * n_threads;

constexpr int half_exponent = 14;                       /* where factors bring the largest number's exponent */
constexpr int least_exponent = -100, no_exponent = 128; /* for factors that F32 has; of infinity and NaN */
constexpr int least_unscaled = -4;                      /* exponents of tokens that need no factor */
constexpr int f32_bias = 127, f32_fraction = 23;

/* 2^n, of n that F32 has as normal numbers */
__device__ __forceinline__ float power_of_two(int n) {
    return f32_from_bits((uint32_t)(n + f32_bias) << f32_fraction);
}

/* The exponent of a number that is not negative */
__device__ __forceinline__ int exponent_of(uint32_t bits) {
    return (int)(bits >> f32_fraction) - f32_bias;
}

__device__ __forceinline__ uint32_t magnitude_bits(float x) {
    return f32_bits(x) & 0x7fffffff;
}

/* ---- Weights */

/* The codes of a row's step, in the bits from FROM on: `codes` are those of the row in the block. */
template <int BITS, int FROM = 0> __device__ __forceinline__ uint32_t load_step(const uint8_t *codes, int step) {
    constexpr int plane = (int)widest_plane(BITS - FROM);
    uint32_t word = load_4(codes + (FROM + step % plane) * PIECE_BYTES);
    uint32_t bits = (word >> step / plane * plane & plane_mask(plane)) << FROM;
    if constexpr (FROM + plane < BITS)
        bits |= load_step<BITS, FROM + plane>(codes, step);
    return bits;
}

template <TensorType type> __device__ __forceinline__ float element(const uint8_t *panel, size_t at) {
    if constexpr (type == TYPE_F32)
        return reinterpret_cast<const float *>(panel)[at];
    else if constexpr (type == TYPE_F16)
        return half_to_f32(reinterpret_cast<const uint16_t *>(panel)[at]);
    else
        return bf16_to_f32(reinterpret_cast<const uint16_t *>(panel)[at]);
}

/* A row's columns from `column` on, a multiple of 8; zeros behind the last. Eight columns share their scales. */
template <TensorType type>
__device__ __forceinline__ void decode_chunk(const uint8_t *panel, size_t n_columns, size_t column, int row,
                                             float (&values)[chunk]) {
    if constexpr (type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16) {
#pragma unroll
        for (int i = 0; i < chunk; i++)
            values[i] = column + i < n_columns ? element<type>(panel, (column + i) * PANEL_ROWS + row) : 0;
    } else {
        using Panel = PackedPanel<type>;
        size_t block = column / PACKED_BLOCK;
        int in_block = (int)(column % PACKED_BLOCK);
        const uint8_t *block_codes = Panel::block_codes(panel, block) + row * 4;
        float scale, minimum;
        row_scale<type>(panel, block, in_block / Panel::run, row, &scale, &minimum);
#pragma unroll
        for (int i = 0; i < chunk; i += 4) {
            uint32_t codes = load_step<Panel::bits>(block_codes, (in_block + i) / 4);
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float value = scale * (float)((int)(codes >> 8 * c & 0xff) - Panel::bias);
                values[i + c] = Panel::has_minima ? value + minimum : value;
            }
        }
    }
}

/* Where a thread is: the grid is (panels, groups of columns). */
struct ChunkPlace {
    size_t panel, column;
    int row;
};

__device__ __forceinline__ ChunkPlace own_chunk() {
    int thread = (int)threadIdx.x, block = thread / (PANEL_ROWS * block_chunks);
    ChunkPlace place;
    place.panel = blockIdx.x;
    place.column = (size_t)blockIdx.y * group_columns + block * PACKED_BLOCK + thread % block_chunks * chunk;
    place.row = thread / block_chunks % PANEL_ROWS;
    return place;
}

/* Chunks are (rows, row_chunks). The compiler knows that they are aligned to 16 bytes, of halves it does not. */
template <TensorType type>
__global__ void __launch_bounds__(n_threads)
    make_halves(CudaMatrix w, size_t first_panel, size_t row_chunks, uint4 *chunks) {
    ChunkPlace place = own_chunk();
    if (place.column >= w.n_columns)
        return;
    float values[chunk];
    decode_chunk<type>(w.panels + (first_panel + place.panel) * w.panel_bytes, w.n_columns, place.column, place.row,
                       values);
    uint32_t pairs[chunk / 2];
#pragma unroll
    for (int i = 0; i < chunk / 2; i++)
        pairs[i] = half2_from_f32(values[2 * i] * w.half_factor, values[2 * i + 1] * w.half_factor);
    size_t row = place.panel * PANEL_ROWS + place.row;
    chunks[row * row_chunks + place.column / chunk] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

/* Bits of numbers that are not negative have their order, with NaN above all. */
template <TensorType type> __global__ void __launch_bounds__(n_threads) find_largest(CudaMatrix w, unsigned *largest) {
    ChunkPlace place = own_chunk();
    unsigned bits = 0;
    if (place.column < w.n_columns) {
        float values[chunk];
        decode_chunk<type>(w.panels + place.panel * w.panel_bytes, w.n_columns, place.column, place.row, values);
#pragma unroll
        for (int i = 0; i < chunk; i++) {
            unsigned of_value = magnitude_bits(values[i]);
            bits = of_value > bits ? of_value : bits;
        }
    }
#pragma unroll
    for (int mask = warp_lanes / 2; mask > 0; mask /= 2) {
        unsigned other = warp_xor(bits, mask);
        bits = other > bits ? other : bits;
    }
    if (threadIdx.x % warp_lanes == 0)
        atomicMax(largest, bits);
}

dim3 chunk_grid(const CudaMatrix *w, size_t n_panels) {
    return dim3((unsigned)n_panels, (unsigned)((w->n_columns + group_columns - 1) / group_columns));
}

/* ---- Activations */

/* The largest of a block of threads; all of them call it. */
__device__ __forceinline__ uint32_t block_largest(uint32_t bits) {
    CUDA_SHARED(uint32_t, of_warps, [n_threads / warp_lanes]);
#pragma unroll
    for (int mask = warp_lanes / 2; mask > 0; mask /= 2) {
        uint32_t other = warp_xor(bits, mask);
        bits = other > bits ? other : bits;
    }
    if (threadIdx.x % warp_lanes == 0)
        of_warps[threadIdx.x / warp_lanes] = bits;
    __syncthreads();
    for (int i = 0; i < n_threads / warp_lanes; i++)
        bits = of_warps[i] > bits ? of_warps[i] : bits;
    return bits;
}

/* A block of threads for a token. */
__global__ void __launch_bounds__(n_threads)
    halve_token(const float *x, size_t n_columns, size_t stride, uint16_t *halves, float *inverses) {
    const float *token = x + blockIdx.x * n_columns;
    uint16_t *to = halves + blockIdx.x * stride;
    uint32_t largest = 0;
    for (size_t i = threadIdx.x; i < n_columns; i += n_threads) {
        uint32_t bits = magnitude_bits(token[i]);
        largest = bits > largest ? bits : largest;
    }
    int exponent = exponent_of(block_largest(largest));
    bool fits = exponent >= least_unscaled && exponent <= half_exponent;
    int up =
        fits || exponent == no_exponent ? 0 : half_exponent - (exponent > least_exponent ? exponent : least_exponent);
    float factor = power_of_two(up);
    for (size_t i = threadIdx.x; i < stride; i += n_threads)
        to[i] = i < n_columns ? f32_to_half(token[i] * factor) : 0;
    if (threadIdx.x == 0)
        inverses[blockIdx.x] = power_of_two(-up);
}

/* Most tokens have factor 1: then there is nothing to do, but for biases. */
__global__ void __launch_bounds__(n_threads)
    undo_factor(float *y, const float *bias, const float *inverses, size_t n_rows, unsigned n_groups) {
    size_t token = blockIdx.x / n_groups, begin = (size_t)(blockIdx.x % n_groups) * undone_rows;
    float inverse = inverses[token];
    if (inverse == 1 && bias == nullptr)
        return;
    size_t end = begin + undone_rows < n_rows ? begin + undone_rows : n_rows;
    for (size_t row = begin + threadIdx.x; row < end; row += n_threads) {
        float sum = y[token * n_rows + row] * inverse;
        y[token * n_rows + row] = bias != nullptr ? sum + bias[row] : sum;
    }
}

} // namespace

extern "C" size_t cuda_half_stride(size_t n_columns) {
    return (n_columns + chunk - 1) / chunk * chunk;
}

extern "C" float cuda_half_factor(uint32_t largest) {
    int exponent = (int)(largest >> f32_fraction) - f32_bias;
    if (exponent == no_exponent)
        return 1;
    uint32_t bits = (uint32_t)(half_exponent - (exponent > least_exponent ? exponent : least_exponent) + f32_bias)
                    << f32_fraction;
    float factor;
    memcpy(&factor, &bits, sizeof factor);
    return factor;
}

extern "C" void cuda_find_largest(const CudaMatrix *w, uint32_t *largest, cudaStream_t stream) {
    dim3 grid = chunk_grid(w, (w->n_rows + PANEL_ROWS - 1) / PANEL_ROWS), block(n_threads);
    switch (w->type) {
#define FIND_LARGEST(type, ...)                                                                                        \
    case type:                                                                                                         \
        CUDA_LAUNCH((find_largest<type>), grid, block, 0, stream, *w, largest);                                        \
        break;
        CODED_TYPES(FIND_LARGEST)
        FLOAT_TYPES(FIND_LARGEST)
#undef FIND_LARGEST
    case TENSOR_TYPE_COUNT:
        break;
    }
}

extern "C" void cuda_dequantize(const CudaMatrix *w, size_t first_panel, size_t n_panels, uint16_t *halves,
                                cudaStream_t stream) {
    size_t row_chunks = cuda_half_stride(w->n_columns) / chunk;
    uint4 *chunks = reinterpret_cast<uint4 *>(halves);
    dim3 grid = chunk_grid(w, n_panels), block(n_threads);
    switch (w->type) {
#define MAKE_HALVES(type, ...)                                                                                         \
    case type:                                                                                                         \
        CUDA_LAUNCH((make_halves<type>), grid, block, 0, stream, *w, first_panel, row_chunks, chunks);                 \
        break;
        CODED_TYPES(MAKE_HALVES)
        FLOAT_TYPES(MAKE_HALVES)
#undef MAKE_HALVES
    case TENSOR_TYPE_COUNT:
        break;
    }
}

extern "C" void cuda_halve_tokens(const float *x, size_t n_tokens, size_t n_columns, uint16_t *halves, float *inverses,
                                  cudaStream_t stream) {
    CUDA_LAUNCH(halve_token, dim3((unsigned)n_tokens), dim3(n_threads), 0, stream, x, n_columns,
                cuda_half_stride(n_columns), halves, inverses);
}

extern "C" void cuda_undo_factors(float *y, const float *bias, const float *inverses, size_t n_tokens, size_t n_rows,
                                  cudaStream_t stream) {
    unsigned n_groups = (unsigned)((n_rows + undone_rows - 1) / undone_rows);
    CUDA_LAUNCH(undo_factor, dim3((unsigned)n_tokens * n_groups), dim3(n_threads), 0, stream, y, bias, inverses, n_rows,
                n_groups);
}
