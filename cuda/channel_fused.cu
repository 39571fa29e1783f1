/* Scales and codes in one launch that reads keys from memory once; see channel_steps.h. No code is known before the
 * whole channel was seen, and a channel of many tokens fits no block of threads. But a strip of channels, all tokens of
 * it, fits the L2 cache: so the matrix is cut into strips, strips into units of some tokens, and while one strip is
 * read for its largest magnitudes, another one is read again, from L2, for its codes.
 *
 * Blocks of threads take tickets, in order. Ticket k is to look for the largest magnitudes of unit k, and to code unit
 * k - lag, which may have to wait until the strip of that unit has been looked at by all. It does not wait for ever:
 * lag is a strip at least, so that what it waits for has a lower ticket; who holds that one as its current one waits
 * for nothing before it has done it, and who holds it as its next one has a current one that is lower still. So the
 * lowest of all goes on, however few blocks run at a time.
 *
 * Strips are as wide as lets all that is between the two readings fit half of the L2 cache, and 32 bytes a row at
 * least. Where not even these fit (from some 500,000 tokens on for 50 MB), the second reading is from memory too, and
 * 9 bytes an element move instead of 5. */
#include "cuda/channel_steps.h"

#include "cuda/channel_chunk.cuh"

namespace {

constexpr int thread_rows = 4; /* of a unit */
constexpr int blocks_each = 3; /* of a multiprocessor */
constexpr int least_lanes = 2; /* 32 bytes, what memory moves at least */
constexpr int unfit_lanes = 8; /* where nothing fits: a line of the cache */
constexpr size_t unit_bytes = (size_t)n_threads * thread_rows * 16;
constexpr int most_channels = warp_lanes * Chunk<uint16_t>::width;

struct Cut {
    unsigned n_units; /* of a strip */
    unsigned n_all, lag, n_blocks;
};

/* Memory of the device that blocks share. */
struct Meeting {
    unsigned *ticket;  /* the next one */
    unsigned *arrived; /* units of each strip that were looked at */
    uint32_t *largest; /* of each channel, so far */
};

/* A unit, and the rows of it that a thread has. */
template <typename Element, bool aligned> struct Unit {
    unsigned strip;
    size_t token; /* the thread's first */
    int step;
    Channels<Element, aligned> channels;
    Chunk<Element> chunks[thread_rows];

    __device__ __forceinline__ Unit(const Matrix<Element> &m, const Cut &cut, unsigned number)
        : strip(number / cut.n_units), token(0), step(n_threads / m.lanes),
          channels(strip, (int)threadIdx.x & (m.lanes - 1), m.lanes, m.n_channels) {
        token = (size_t)(number % cut.n_units) * (thread_rows * step) + threadIdx.x / m.lanes;
    }

    __device__ __forceinline__ size_t at(int row) const { return token + (size_t)(row * step); }

    template <bool last> __device__ __forceinline__ void load(const Matrix<Element> &m) {
#pragma unroll
        for (int row = 0; row < thread_rows; row++)
            if (at(row) < m.n_tokens)
                chunks[row] = channels.template load<last>(m.keys + at(row) * m.n_channels);
            else
                chunks[row].set(make_uint4(0, 0, 0, 0));
    }
};

/* The largest magnitudes of a warp's rows, into of_warp. Lanes of the same channels are `lanes` apart. */
template <typename Element, bool aligned>
__device__ __forceinline__ void reduce_warp(const Unit<Element, aligned> &unit, int lanes, uint32_t *of_warp) {
#pragma unroll
    for (int i = 0; i < Chunk<Element>::width; i++) {
        uint32_t bits = 0;
#pragma unroll
        for (int row = 0; row < thread_rows; row++)
            bits = channel_larger(bits, channel_magnitude(unit.chunks[row].value(i)));
        for (int mask = warp_lanes / 2; mask >= lanes; mask /= 2)
            bits = channel_larger(bits, warp_xor(bits, mask));
        if ((int)threadIdx.x % warp_lanes < lanes)
            of_warp[unit.channels.in_column(i)] = bits;
    }
}

/* The thread's channel of a strip; n_channels where it has none. */
template <typename Element> __device__ __forceinline__ size_t own_channel(const Matrix<Element> &m, unsigned strip) {
    size_t n = (size_t)m.lanes * Chunk<Element>::width, d = strip * n + threadIdx.x;
    return threadIdx.x < n && d < m.n_channels ? d : m.n_channels;
}

/* From the scales of the strip's channels. */
template <typename Element, bool aligned>
__device__ __forceinline__ void code_unit(const Matrix<Element> &m, const Unit<Element, aligned> &unit,
                                          const float *scales, const float *inverses) {
    constexpr int width = Chunk<Element>::width;
    ChannelCoder coders[width];
    bool is_usual = true;
#pragma unroll
    for (int i = 0; i < width; i++) {
        int at = unit.channels.in_column(i);
        coders[i] = {scales[at], inverses[at]};
        is_usual = is_usual && (!unit.channels.has(i) || coders[i].is_usual());
    }
    if (!is_usual) {
#pragma unroll 1
        for (int row = 0; row < thread_rows; row++)
            if (unit.at(row) < m.n_tokens)
                unit.channels.store_unusual_codes(m.codes + unit.at(row) * m.n_channels,
                                                  m.keys + unit.at(row) * m.n_channels, scales + unit.channels.from);
        return;
    }
#pragma unroll
    for (int row = 0; row < thread_rows; row++)
        if (unit.at(row) < m.n_tokens)
            unit.channels.store_codes(m.codes + unit.at(row) * m.n_channels, unit.chunks[row], coders);
}

/* A thread for each channel of the strip: the largest magnitude of its warps', to where all blocks meet. */
template <typename Element>
__device__ __forceinline__ void publish_largest(const Matrix<Element> &m, unsigned strip,
                                                const uint32_t of_warps[n_warps][most_channels], uint32_t *largest) {
    size_t d = own_channel(m, strip);
    uint32_t found = 0;
    if (d == m.n_channels)
        return;
    for (int warp = 0; warp < n_warps; warp++)
        found = channel_larger(found, of_warps[warp][threadIdx.x]);
    atomicMax(largest + d, found);
    __threadfence(); /* it is there before the unit counts as looked at */
}

/* Until all units of the strip have been looked at. By one thread; what others read behind a barrier is theirs. */
__device__ __forceinline__ void wait_for_strip(unsigned *arrived, unsigned n_units) {
    while (atomicAdd(arrived, 0) < n_units)
        continue;
    __threadfence();
}

/* Scales of a strip that has been looked at, into shared memory, and where they belong too. */
template <typename Element>
__device__ __forceinline__ void take_scales(const Matrix<Element> &m, unsigned strip, uint32_t *largest, bool keeps,
                                            float *scales, float *inverses) {
    size_t d = own_channel(m, strip);
    if (d == m.n_channels)
        return;
    float scale = channel_scale(atomicMax(largest + d, 0)); /* past the L1 cache */
    scales[threadIdx.x] = scale;
    inverses[threadIdx.x] = channel_inverse(scale);
    if (keeps)
        m.scales[d] = scale;
}

/* All loads of a ticket are on their way before anything is waited for, and so is the next ticket. Rows that are not
 * aligned take more registers. */
template <typename Element, bool aligned>
__global__ void __launch_bounds__(n_threads, aligned ? blocks_each : 2)
    fused(Matrix<Element> m, Cut cut, Meeting meeting) {
    CUDA_SHARED(uint32_t, of_warps, [n_warps][most_channels]);
    CUDA_SHARED(float, scales, [most_channels]);
    CUDA_SHARED(float, inverses, [most_channels]);
    CUDA_SHARED(unsigned, next_ticket);
    bool is_first = threadIdx.x == 0;
    unsigned next = 0;
    if (is_first)
        next_ticket = atomicAdd(meeting.ticket, 1);
    __syncthreads();
    for (unsigned ticket = next_ticket; ticket < cut.n_all + cut.lag; ticket = next_ticket) {
        bool looks = ticket < cut.n_all, codes = ticket >= cut.lag;
        unsigned coded_number = codes ? ticket - cut.lag : 0;
        Unit<Element, aligned> seen(m, cut, looks ? ticket : 0), coded(m, cut, coded_number);
        if (is_first)
            next = atomicAdd(meeting.ticket, 1);
        if (looks)
            seen.template load<false>(m);
        if (codes)
            coded.template load<true>(m);
        if (looks)
            reduce_warp(seen, m.lanes, of_warps[threadIdx.x / warp_lanes]);
        __syncthreads();
        if (is_first)
            next_ticket = next;
        if (looks)
            publish_largest(m, seen.strip, of_warps, meeting.largest);
        __syncthreads();
        if (is_first && looks)
            atomicAdd(meeting.arrived + seen.strip, 1);
        if (!codes)
            continue;
        if (is_first)
            wait_for_strip(meeting.arrived + coded.strip, cut.n_units);
        __syncthreads();
        take_scales(m, coded.strip, meeting.largest, coded_number % cut.n_units == 0, scales, inverses);
        __syncthreads();
        code_unit(m, coded, scales, inverses);
    }
}

/* ---- Launches */

size_t units_of(const CudaChannelJob *job, int lanes) {
    size_t tokens = (size_t)thread_rows * (n_threads / lanes);
    return (job->n_tokens + tokens - 1) / tokens;
}

/* Strips whose units, and those that are under way meanwhile, fit half of the cache. */
int strip_lanes(const CudaChannelJob *job) {
    int most = row_lanes(job), least = most < least_lanes ? most : least_lanes;
    size_t under_way = job->n_multiprocessors * blocks_each;
    for (int lanes = most; lanes >= least; lanes /= 2)
        if ((units_of(job, lanes) + under_way) * unit_bytes <= job->cache_bytes / 2)
            return lanes;
    return most < unfit_lanes ? most : unfit_lanes;
}

/* A strip is coded when another one and what is under way has been looked at, so that nobody has to wait; or when
 * everything has. */
Cut cut_of(const CudaChannelJob *job, int lanes, unsigned n_strips) {
    size_t n_units = units_of(job, lanes), n_all = n_units * n_strips;
    size_t n_blocks = job->n_multiprocessors * blocks_each, lag = n_units + n_blocks;
    Cut cut = {(unsigned)n_units, (unsigned)n_all, (unsigned)(lag < n_all ? lag : n_all),
               (unsigned)(n_blocks < n_all ? n_blocks : n_all)};
    return cut;
}

} // namespace

extern "C" size_t cuda_channel_work_bytes(size_t n_channels) {
    return (1 + 2 * n_channels) * sizeof(unsigned);
}

#define LAUNCH_FUSED(Element, aligned)                                                                                 \
    Matrix<Element> m(job, (size_t)lanes *Chunk<Element>::width, lanes);                                               \
    Cut cut = cut_of(job, lanes, m.n_columns);                                                                         \
    CUDA_LAUNCH((fused<Element, aligned>), dim3(cut.n_blocks), dim3(n_threads), 0, stream, m, cut, meeting)

extern "C" void cuda_channel_fused(const CudaChannelJob *job, cudaStream_t stream) {
    unsigned *work = static_cast<unsigned *>(job->work);
    Meeting meeting = {work, work + 1, work + 1 + job->n_channels};
    int lanes = strip_lanes(job);
    cudaMemsetAsync(work, 0, cuda_channel_work_bytes(job->n_channels), stream);
    CHANNEL_SELECT(job, LAUNCH_FUSED)
}
