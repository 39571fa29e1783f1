/* The textbook's four ways to quantize, and scales; see channel_steps.h. Each element is read once and none is used
 * twice, so that shared memory has nothing to save: what differs is how many bytes a thread has under way. Blocks are
 * numbered along the channels first, and neighbours read what lies side by side. */
#include "cuda/channel_steps.h"

#include "cuda/channel_chunk.cuh"

namespace {

constexpr int coarse = 4;                                /* elements of a thread */
constexpr int tile = 32;                                 /* tokens, and channels */
constexpr int chunk_rows = 8;                            /* of a thread, vectorized */
constexpr int reduced_tokens = 4 * chunk_rows * n_warps; /* of a block that looks for largest magnitudes */
constexpr int most_channels = warp_lanes * Chunk<uint16_t>::width;

/* The first token of a block, and its place along the channels. */
struct BlockPlace {
    size_t token, column;
};

__device__ __forceinline__ BlockPlace own_block(unsigned n_columns, int block_tokens) {
    BlockPlace place = {(size_t)(blockIdx.x / n_columns) * block_tokens, blockIdx.x % n_columns};
    return place;
}

__device__ __forceinline__ int own_warp() {
    return (int)threadIdx.x / warp_lanes;
}

__device__ __forceinline__ int own_lane_of_warp() {
    return (int)threadIdx.x % warp_lanes;
}

/* ---- Scales */

template <typename Element> __global__ void __launch_bounds__(n_threads) scales_naive(Matrix<Element> m) {
    size_t d = (size_t)blockIdx.x * n_threads + threadIdx.x;
    uint32_t largest = 0;
    if (d >= m.n_channels)
        return;
    for (size_t t = 0; t < m.n_tokens; t++)
        largest = channel_larger(largest, channel_magnitude(to_f32(m.keys[t * m.n_channels + d])));
    m.scales[d] = channel_scale(largest);
}

/* Eight rows of a warp, eight tokens apart; what is beyond the end changes no maximum. */
template <typename Element, bool aligned>
__device__ __forceinline__ void raise_largest(const Matrix<Element> &m, const Channels<Element, aligned> &channels,
                                              size_t token, uint32_t bits[Chunk<Element>::width]) {
    Chunk<Element> chunks[chunk_rows] = {};
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
        if (token + row * n_warps < m.n_tokens)
            chunks[row] = channels.load(m.keys + (token + row * n_warps) * m.n_channels);
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
#pragma unroll
        for (int i = 0; i < Chunk<Element>::width; i++)
            bits[i] = channel_larger(bits[i], channel_magnitude(chunks[row].value(i)));
}

/* A warp has every eighth row; at the end a thread has a channel of all warps. */
template <typename Element, bool aligned>
__global__ void __launch_bounds__(n_threads) find_largest(Matrix<Element> m, uint32_t *largest) {
    constexpr int width = Chunk<Element>::width;
    CUDA_SHARED(uint32_t, of_warps, [n_warps][most_channels]);
    BlockPlace place = own_block(m.n_columns, reduced_tokens);
    Channels<Element, aligned> channels(place.column, own_lane_of_warp(), warp_lanes, m.n_channels);
    uint32_t bits[width] = {0};
    for (int row = 0; row < reduced_tokens; row += chunk_rows * n_warps)
        raise_largest(m, channels, place.token + row + own_warp(), bits);
#pragma unroll
    for (int i = 0; i < width; i++)
        of_warps[own_warp()][channels.in_column(i)] = bits[i];
    __syncthreads();
    size_t d = place.column * warp_lanes * width + threadIdx.x;
    if (threadIdx.x >= warp_lanes * width || d >= m.n_channels)
        return;
    uint32_t found = 0;
    for (int warp = 0; warp < n_warps; warp++)
        found = channel_larger(found, of_warps[warp][threadIdx.x]);
    atomicMax(largest + d, found);
}

__global__ void __launch_bounds__(n_threads) set_scales(const uint32_t *largest, size_t n_channels, float *scales) {
    size_t d = (size_t)blockIdx.x * n_threads + threadIdx.x;
    if (d < n_channels)
        scales[d] = channel_scale(largest[d]);
}

/* ---- Codes */

template <typename Element> __global__ void __launch_bounds__(n_threads) codes_naive(Matrix<Element> m) {
    BlockPlace place = own_block(m.n_columns, n_warps);
    size_t t = place.token + own_warp(), d = place.column * warp_lanes + own_lane_of_warp();
    if (t >= m.n_tokens || d >= m.n_channels)
        return;
    float scale = m.scales[d];
    m.codes[t * m.n_channels + d] = channel_code(to_f32(m.keys[t * m.n_channels + d]), scale, channel_inverse(scale));
}

/* The tile of a block, and the scales of its channels, into shared memory. Rows are read by one warp and used by another:
 * else there would be nothing to share. */
template <typename Element, typename From>
__device__ __forceinline__ void load_tile(const Matrix<Element> &m, const From *from, BlockPlace place,
                                          From (*elements)[tile], float *scales) {
    int lane = own_lane_of_warp();
    size_t d = place.column * tile + lane;
    for (int row = own_warp(); row < tile; row += n_warps)
        if (place.token + row < m.n_tokens && d < m.n_channels)
            elements[row][lane] = from[(place.token + row) * m.n_channels + d];
    if (own_warp() == 0 && d < m.n_channels)
        scales[lane] = m.scales[d];
    __syncthreads();
}

template <typename Element> __global__ void __launch_bounds__(n_threads) codes_tiled(Matrix<Element> m) {
    CUDA_SHARED(Element, elements, [tile][tile]);
    CUDA_SHARED(float, scales, [tile]);
    BlockPlace place = own_block(m.n_columns, tile);
    int lane = own_lane_of_warp();
    size_t d = place.column * tile + lane;
    load_tile(m, m.keys, place, elements, scales);
    if (d >= m.n_channels)
        return;
    float scale = scales[lane], inverse = channel_inverse(scale);
    for (int row = n_warps - 1 - own_warp(); row < tile; row += n_warps)
        if (place.token + row < m.n_tokens)
            m.codes[(place.token + row) * m.n_channels + d] = channel_code(to_f32(elements[row][lane]), scale, inverse);
}

/* All loads come before the first store, which might change what they read for all that the compiler knows. */
template <typename Element> __global__ void __launch_bounds__(n_threads) codes_coarsened(Matrix<Element> m) {
    BlockPlace place = own_block(m.n_columns, n_warps);
    size_t t = place.token + own_warp(), first = place.column * coarse * warp_lanes + own_lane_of_warp();
    float x[coarse], scales[coarse];
    if (t >= m.n_tokens)
        return;
#pragma unroll
    for (int i = 0; i < coarse; i++) {
        size_t d = first + i * warp_lanes;
        x[i] = d < m.n_channels ? to_f32(m.keys[t * m.n_channels + d]) : 0;
        scales[i] = d < m.n_channels ? m.scales[d] : 0;
    }
#pragma unroll
    for (int i = 0; i < coarse; i++)
        if (first + i * warp_lanes < m.n_channels)
            m.codes[t * m.n_channels + first + i * warp_lanes] =
                channel_code(x[i], scales[i], channel_inverse(scales[i]));
}

/* A thread's rows, in kernels that read chunks: rows have as many lanes as they need, so that narrow matrices leave
 * none idle. */
struct RowPlace {
    size_t token, column;
    int lane, step; /* tokens from one row of the thread to its next */

    __device__ __forceinline__ size_t at(int row) const { return token + (size_t)(row * step); }
};

__device__ __forceinline__ RowPlace own_rows(unsigned n_columns, int lanes) {
    BlockPlace block = own_block(n_columns, chunk_rows * (n_threads / lanes));
    RowPlace place = {block.token + threadIdx.x / lanes, block.column, (int)threadIdx.x & (lanes - 1),
                      n_threads / lanes};
    return place;
}

template <typename Element, bool aligned>
__device__ __forceinline__ void code_unusual(const Matrix<Element> &m, const RowPlace &place,
                                             const Channels<Element, aligned> &channels) {
#pragma unroll 1
    for (int row = 0; row < chunk_rows; row++)
        if (place.at(row) < m.n_tokens)
            channels.store_unusual_codes(m.codes + place.at(row) * m.n_channels, m.keys + place.at(row) * m.n_channels,
                                         m.scales + channels.first);
}

template <typename Element, bool aligned>
__global__ void __launch_bounds__(n_threads, 2) codes_vectorized(Matrix<Element> m) {
    constexpr int width = Chunk<Element>::width;
    RowPlace place = own_rows(m.n_columns, m.lanes);
    Channels<Element, aligned> channels(place.column, place.lane, m.lanes, m.n_channels);
    Chunk<Element> chunks[chunk_rows] = {};
    ChannelCoder coders[width];
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
        if (place.at(row) < m.n_tokens)
            chunks[row] = channels.load(m.keys + place.at(row) * m.n_channels);
    bool is_usual = true;
#pragma unroll
    for (int i = 0; i < width; i++) {
        float scale = channels.has(i) ? m.scales[channels.at(i)] : 1;
        coders[i] = {scale, channel_inverse(scale)};
        is_usual = is_usual && coders[i].is_usual();
    }
    if (!is_usual) {
        code_unusual(m, place, channels);
        return;
    }
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
        if (place.at(row) < m.n_tokens)
            channels.store_codes(m.codes + place.at(row) * m.n_channels, chunks[row], coders);
}

/* ---- What codes say */

template <typename Element> __global__ void __launch_bounds__(n_threads) decode_naive(Matrix<Element> m) {
    BlockPlace place = own_block(m.n_columns, n_warps);
    size_t t = place.token + own_warp(), d = place.column * warp_lanes + own_lane_of_warp(), i = t * m.n_channels + d;
    if (t < m.n_tokens && d < m.n_channels)
        set_element(m.decoded + i, channel_decode(m.codes[i], m.scales[d]));
}

template <typename Element> __global__ void __launch_bounds__(n_threads) decode_tiled(Matrix<Element> m) {
    CUDA_SHARED(int8_t, elements, [tile][tile]);
    CUDA_SHARED(float, scales, [tile]);
    BlockPlace place = own_block(m.n_columns, tile);
    int lane = own_lane_of_warp();
    size_t d = place.column * tile + lane;
    load_tile(m, m.codes, place, elements, scales);
    if (d >= m.n_channels)
        return;
    for (int row = n_warps - 1 - own_warp(); row < tile; row += n_warps)
        if (place.token + row < m.n_tokens)
            set_element(m.decoded + (place.token + row) * m.n_channels + d,
                        channel_decode(elements[row][lane], scales[lane]));
}

template <typename Element> __global__ void __launch_bounds__(n_threads) decode_coarsened(Matrix<Element> m) {
    BlockPlace place = own_block(m.n_columns, n_warps);
    size_t t = place.token + own_warp(), first = place.column * coarse * warp_lanes + own_lane_of_warp();
    float values[coarse];
    if (t >= m.n_tokens)
        return;
#pragma unroll
    for (int i = 0; i < coarse; i++) {
        size_t d = first + i * warp_lanes;
        values[i] = d < m.n_channels ? channel_decode(m.codes[t * m.n_channels + d], m.scales[d]) : 0;
    }
#pragma unroll
    for (int i = 0; i < coarse; i++)
        if (first + i * warp_lanes < m.n_channels)
            set_element(m.decoded + t * m.n_channels + first + i * warp_lanes, values[i]);
}

template <typename Element, bool aligned>
__global__ void __launch_bounds__(n_threads) decode_vectorized(Matrix<Element> m) {
    constexpr int width = Chunk<Element>::width;
    RowPlace place = own_rows(m.n_columns, m.lanes);
    Channels<Element, aligned> channels(place.column, place.lane, m.lanes, m.n_channels);
    PackedCodes<width> packed[chunk_rows] = {};
    float scales[width];
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
        if (place.at(row) < m.n_tokens)
            packed[row] = channels.load_codes(m.codes + place.at(row) * m.n_channels);
#pragma unroll
    for (int i = 0; i < width; i++)
        scales[i] = channels.has(i) ? m.scales[channels.at(i)] : 0;
#pragma unroll
    for (int row = 0; row < chunk_rows; row++)
        if (place.at(row) < m.n_tokens)
            channels.store_values(m.decoded + place.at(row) * m.n_channels, packed[row], scales);
}

} // namespace

/* ---- Launches */

#define LAUNCH_PLAIN(kernel, Element, block_tokens, block_channels)                                                    \
    Matrix<Element> m(job, block_channels, 0);                                                                         \
    dim3 grid(blocks_for(job->n_tokens, block_tokens) * m.n_columns);                                                  \
    CUDA_LAUNCH(kernel<Element>, grid, dim3(n_threads), 0, stream, m)

/* A launcher of a kernel whose blocks have so many tokens of so many channels. */
#define PLAIN_LAUNCHER(kernel, block_tokens, block_channels)                                                           \
    extern "C" void cuda_channel_##kernel(const CudaChannelJob *job, cudaStream_t stream) {                            \
        if (job->half_keys) {                                                                                          \
            LAUNCH_PLAIN(kernel, uint16_t, block_tokens, block_channels);                                              \
        } else {                                                                                                       \
            LAUNCH_PLAIN(kernel, float, block_tokens, block_channels);                                                 \
        }                                                                                                              \
    }

PLAIN_LAUNCHER(scales_naive, SIZE_MAX, n_threads)
PLAIN_LAUNCHER(codes_naive, n_warps, warp_lanes)
PLAIN_LAUNCHER(codes_tiled, tile, tile)
PLAIN_LAUNCHER(codes_coarsened, n_warps, coarse *warp_lanes)
PLAIN_LAUNCHER(decode_naive, n_warps, warp_lanes)
PLAIN_LAUNCHER(decode_tiled, tile, tile)
PLAIN_LAUNCHER(decode_coarsened, n_warps, coarse *warp_lanes)

#define LAUNCH_CHUNKED(kernel, Element, aligned)                                                                       \
    int lanes = row_lanes(job);                                                                                        \
    Matrix<Element> m(job, (size_t)lanes *Chunk<Element>::width, lanes);                                               \
    dim3 grid(blocks_for(job->n_tokens, (size_t)chunk_rows *(n_threads / lanes)) * m.n_columns);                       \
    CUDA_LAUNCH((kernel<Element, aligned>), grid, dim3(n_threads), 0, stream, m)

#define LAUNCH_CODES(Element, aligned)  LAUNCH_CHUNKED(codes_vectorized, Element, aligned)
#define LAUNCH_DECODE(Element, aligned) LAUNCH_CHUNKED(decode_vectorized, Element, aligned)

extern "C" void cuda_channel_codes_vectorized(const CudaChannelJob *job, cudaStream_t stream) {
    CHANNEL_SELECT(job, LAUNCH_CODES)
}

extern "C" void cuda_channel_decode_vectorized(const CudaChannelJob *job, cudaStream_t stream) {
    CHANNEL_SELECT(job, LAUNCH_DECODE)
}

#define LAUNCH_LARGEST(Element, aligned)                                                                               \
    Matrix<Element> m(job, (size_t)warp_lanes *Chunk<Element>::width, warp_lanes);                                     \
    dim3 grid(blocks_for(job->n_tokens, reduced_tokens) * m.n_columns);                                                \
    CUDA_LAUNCH((find_largest<Element, aligned>), grid, dim3(n_threads), 0, stream, m, largest)

extern "C" void cuda_channel_scales(const CudaChannelJob *job, cudaStream_t stream) {
    uint32_t *largest = static_cast<uint32_t *>(job->work);
    cudaMemsetAsync(largest, 0, job->n_channels * sizeof *largest, stream);
    CHANNEL_SELECT(job, LAUNCH_LARGEST)
    CUDA_LAUNCH(set_scales, dim3(blocks_for(job->n_channels, n_threads)), dim3(n_threads), 0, stream, largest,
                job->n_channels, job->scales);
}
