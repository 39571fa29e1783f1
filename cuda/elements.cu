/* Embedding rows, norms, RoPE and the elementwise steps; see elements.h. Products and sums are rounded apart, as on the
 * CPU: nvcc compiles this with -fmad=false. */
#include "cuda/elements.h"

#include "cuda/packed_panel.cuh"
#include "cuda/primitives.cuh"
#include "cuda/rmsnorm.cuh"
#include "cuda/swiglu.cuh"

namespace {

constexpr int n_threads = 256;

/* Whole blocks of threads for n. */
unsigned blocks_for(size_t n) {
    return (unsigned)((n + n_threads - 1) / n_threads);
}

__device__ __forceinline__ size_t own_index() {
    return (size_t)blockIdx.x * n_threads + threadIdx.x;
}

/* ---- Embedding */

/* A thread decodes a block of a row. */
template <TensorType type>
__global__ void __launch_bounds__(n_threads)
    embed_coded(CudaMatrix embedding, const int32_t *tokens, size_t n_tokens, float *x) {
    using Panel = PackedPanel<type>;
    size_t n_blocks = embedding.n_columns / PACKED_BLOCK, token = own_index() / n_blocks;
    size_t block = own_index() % n_blocks;
    if (token >= n_tokens)
        return;
    const uint8_t *panel = embedding.panels + (size_t)tokens[token] / PANEL_ROWS * embedding.panel_bytes;
    int row = (int)((size_t)tokens[token] % PANEL_ROWS);
    float *out = x + token * embedding.n_columns + block * PACKED_BLOCK;
    uint32_t pieces[Panel::bits];
#pragma unroll
    for (int piece = 0; piece < Panel::bits; piece++)
        pieces[piece] = load_4(Panel::block_codes(panel, block) + piece * PIECE_BYTES + row * 4);
#pragma unroll
    for (int step = 0; step < PLANE_STEPS; step++) {
        uint32_t codes = step_codes<Panel::bits, 0>(pieces, step);
        float scale, minimum;
        row_scale<type>(panel, block, step * 4 / Panel::run, row, &scale, &minimum);
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float value = scale * (float)((int)(codes >> 8 * c & 0xff) - Panel::bias);
            out[step * 4 + c] = Panel::has_minima ? value + minimum : value;
        }
    }
}

template <TensorType type>
__global__ void __launch_bounds__(n_threads)
    embed_floats(CudaMatrix embedding, const int32_t *tokens, size_t n_tokens, float *x) {
    size_t n_columns = embedding.n_columns, token = own_index() / n_columns, column = own_index() % n_columns;
    if (token >= n_tokens)
        return;
    const uint8_t *panel = embedding.panels + (size_t)tokens[token] / PANEL_ROWS * embedding.panel_bytes;
    size_t element = column * PANEL_ROWS + (size_t)tokens[token] % PANEL_ROWS;
    if constexpr (type == TYPE_F32)
        x[own_index()] = reinterpret_cast<const float *>(panel)[element];
    else if constexpr (type == TYPE_F16)
        x[own_index()] = half_to_f32(reinterpret_cast<const uint16_t *>(panel)[element]);
    else
        x[own_index()] = bf16_to_f32(reinterpret_cast<const uint16_t *>(panel)[element]);
}

/* ---- Norms, RoPE, elementwise */

/* Four numbers from i on; beyond n they are zero. */
__device__ __forceinline__ float4 load_four(const float *x, size_t i, size_t n) {
    return make_float4(x[i], i + 1 < n ? x[i + 1] : 0, i + 2 < n ? x[i + 2] : 0, i + 3 < n ? x[i + 3] : 0);
}

/* A block of threads for a token. */
__global__ void __launch_bounds__(norm_threads)
    normalize(const float *x, const float *gain, float eps, size_t n, float *y) {
    const float *token = x + blockIdx.x * n;
    float squares = 0;
    for (size_t i = 4 * threadIdx.x; i < n; i += 4 * norm_threads)
        squares = add_squares(load_four(token, i, n), squares);
    float scale = norm_scale(squares, eps, n);
    for (size_t i = threadIdx.x; i < n; i += norm_threads)
        y[blockIdx.x * n + i] = token[i] * gain[i] * scale;
}

__global__ void __launch_bounds__(n_threads) gate_up(float *gate, const float *up, size_t n) {
    if (own_index() >= n)
        return;
    gate[own_index()] = swiglu(gate[own_index()], up[own_index()]);
}

/* The tanh form of GELU, as the CPU's kernels have it (cpu/kernels.h). */
__global__ void __launch_bounds__(n_threads) gate_gelu(float *gate, const float *up, size_t n) {
    if (own_index() >= n)
        return;
    float z = gate[own_index()], inner = 0.7978845608f * (z + 0.044715f * z * (z * z));
    float tanh = 1.0f - 2.0f / (1.0f + expf(fminf(88.0f, inner + inner)));
    gate[own_index()] = 0.5f * z * (1.0f + tanh) * up[own_index()];
}

__global__ void __launch_bounds__(n_threads) scale_by(float *x, float scale, size_t n) {
    if (own_index() < n)
        x[own_index()] *= scale;
}

__global__ void __launch_bounds__(n_threads) cap_at(float *x, float cap, size_t n) {
    if (own_index() >= n)
        return;
    float z = x[own_index()] / cap;
    x[own_index()] = cap * (1.0f - 2.0f / (1.0f + expf(fminf(88.0f, z + z))));
}

__global__ void __launch_bounds__(n_threads) add_to(float *x, const float *y, size_t n) {
    if (own_index() < n)
        x[own_index()] += y[own_index()];
}

} // namespace

extern "C" void cuda_embed(const CudaMatrix *embedding, const int32_t *tokens, size_t n_tokens, float *x,
                           cudaStream_t stream) {
    dim3 block(n_threads), each_block(blocks_for(n_tokens * (embedding->n_columns / PACKED_BLOCK)));
    dim3 each_element(blocks_for(n_tokens * embedding->n_columns));
    switch (embedding->type) {
#define EMBED_CODED(type, bits, bias, run, scales)                                                                     \
    case type:                                                                                                         \
        CUDA_LAUNCH((embed_coded<type>), each_block, block, 0, stream, *embedding, tokens, n_tokens, x);               \
        break;
#define EMBED_FLOATS(type)                                                                                             \
    case type:                                                                                                         \
        CUDA_LAUNCH((embed_floats<type>), each_element, block, 0, stream, *embedding, tokens, n_tokens, x);            \
        break;
        CODED_TYPES(EMBED_CODED)
        FLOAT_TYPES(EMBED_FLOATS)
#undef EMBED_CODED
#undef EMBED_FLOATS
    case TENSOR_TYPE_COUNT:
        break;
    }
}

extern "C" void cuda_rmsnorm(const float *x, const float *gain, float eps, size_t n, size_t n_tokens, float *y,
                             cudaStream_t stream) {
    CUDA_LAUNCH(normalize, dim3((unsigned)n_tokens), dim3(norm_threads), 0, stream, x, gain, eps, n, y);
}

extern "C" void cuda_swiglu(float *gate, const float *up, size_t n, cudaStream_t stream) {
    CUDA_LAUNCH(gate_up, dim3(blocks_for(n)), dim3(n_threads), 0, stream, gate, up, n);
}

extern "C" void cuda_geglu(float *gate, const float *up, size_t n, cudaStream_t stream) {
    CUDA_LAUNCH(gate_gelu, dim3(blocks_for(n)), dim3(n_threads), 0, stream, gate, up, n);
}

extern "C" void cuda_scale(float *x, float scale, size_t n, cudaStream_t stream) {
    CUDA_LAUNCH(scale_by, dim3(blocks_for(n)), dim3(n_threads), 0, stream, x, scale, n);
}

extern "C" void cuda_soft_cap(float *x, float cap, size_t n, cudaStream_t stream) {
    CUDA_LAUNCH(cap_at, dim3(blocks_for(n)), dim3(n_threads), 0, stream, x, cap, n);
}

extern "C" void cuda_add(float *x, const float *y, size_t n, cudaStream_t stream) {
    CUDA_LAUNCH(add_to, dim3(blocks_for(n)), dim3(n_threads), 0, stream, x, y, n);
}
