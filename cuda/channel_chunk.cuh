/* Elements of the kernels of per-channel INT8: 16 bytes of keys that a thread has of a row, FP16 or F32, and the code
 * of a number. */
#ifndef STOWKV_CUDA_CHANNEL_CHUNK_CUH
#define STOWKV_CUDA_CHANNEL_CHUNK_CUH

#include "channel_int8/code.h"
#include "cuda/channel_job.h"
#include "cuda/primitives.cuh"

namespace {

constexpr int n_threads = 256, warp_lanes = 32, n_warps = n_threads / warp_lanes;

/* ---- Single elements */

__device__ __forceinline__ float to_f32(float x) {
    return x;
}

__device__ __forceinline__ float to_f32(uint16_t x) {
    return half_to_f32(x);
}

__device__ __forceinline__ void set_element(float *to, float x) {
    *to = x;
}

__device__ __forceinline__ void set_element(uint16_t *to, float x) {
    *to = f32_to_half(x);
}

/* channel_code() of a channel, without a branch and without double: the product with 1 / scale finds the code or, near
 * half way between two, perhaps its neighbour; the remainder x - code * scale is exact there, and tells. */
struct ChannelCoder {
    float scale, inverse;

    /* Else, for scales of which few bits are left and those that make all codes 0, code() is not for it. */
    __device__ __forceinline__ bool is_usual() const { return scale >= 0x1p-60f; }

    /* In the lowest byte; the others are anything. */
    __device__ __forceinline__ uint32_t code(float x) const {
        constexpr float shift = 12582912.0f; /* 1.5 * 2^23: a float beside it has an integer in its lowest bits */
        float shifted = fmaf(x, inverse, shift), remainder = fmaf(shift - shifted, scale, x);
        uint32_t code = f32_bits(shifted), sign = f32_bits(remainder) >> 31;
        /* More than half of the scale is the neighbour's; so is half of it where the code is odd. */
        if (fabsf(remainder) >= f32_from_bits(f32_bits(scale * 0.5f) + 1 - (code & 1)))
            code += 1 - 2 * sign;
        return code;
    }
};

/* ---- Chunks */

/* 16 bytes of a row: `width` elements, side by side where rows are aligned, else as far apart as a row has lanes, so
 * that lanes read side by side. */
template <typename Element> struct Chunk {
    static constexpr int width = 16 / (int)sizeof(Element);
    uint32_t words[4];

    __device__ __forceinline__ void set(uint4 v) { words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w; }

    __device__ __forceinline__ float value(int i) const {
        if constexpr (sizeof(Element) == 4)
            return f32_from_bits(words[i]);
        else
            return i % 2 == 0 ? half2_low(words[i / 2]) : half2_high(words[i / 2]);
    }

    __device__ __forceinline__ void set_value(int i, Element x) {
        if constexpr (sizeof(Element) == 4)
            words[i] = f32_bits(x);
        else
            words[i / 2] |= (uint32_t)x << i % 2 * 16;
    }
};

__device__ __forceinline__ void store_chunk(float *to, const float values[4]) {
    store_16_streaming(to,
                       make_uint4(f32_bits(values[0]), f32_bits(values[1]), f32_bits(values[2]), f32_bits(values[3])));
}

__device__ __forceinline__ void store_chunk(uint16_t *to, const float values[8]) {
    store_16_streaming(to, make_uint4(half2_from_f32(values[0], values[1]), half2_from_f32(values[2], values[3]),
                                      half2_from_f32(values[4], values[5]), half2_from_f32(values[6], values[7])));
}

/* Codes of a chunk, four a word. */
template <int width> struct PackedCodes {
    uint32_t words[width / 4] = {0};

    PackedCodes() = default;

    /* Each is the lowest byte of its word. */
    __device__ __forceinline__ explicit PackedCodes(const uint32_t codes[width]) {
#pragma unroll
        for (int i = 0; i < width / 4; i++)
            words[i] = byte_permute(byte_permute(codes[4 * i], codes[4 * i + 1], 0x0040),
                                    byte_permute(codes[4 * i + 2], codes[4 * i + 3], 0x0040), 0x5410);
    }

    __device__ __forceinline__ int8_t code(int i) const {
        return (int8_t)(words[i / 4] >> i % 4 * 8);
    }

    __device__ __forceinline__ void set(int i, int8_t code) {
        words[i / 4] |= (uint32_t)(uint8_t)code << i % 4 * 8;
    }
};

__device__ __forceinline__ void load_packed(const int8_t *p, PackedCodes<4> *packed) {
    packed->words[0] = load_4(p);
}

__device__ __forceinline__ void load_packed(const int8_t *p, PackedCodes<8> *packed) {
    uint2 v = load_8(p);
    packed->words[0] = v.x, packed->words[1] = v.y;
}

__device__ __forceinline__ void store_packed(int8_t *p, const PackedCodes<4> &packed) {
    store_4_streaming(p, packed.words[0]);
}

__device__ __forceinline__ void store_packed(int8_t *p, const PackedCodes<8> &packed) {
    store_8_streaming(p, make_uint2(packed.words[0], packed.words[1]));
}

/* The channels of a thread. Columns of blocks have `lanes` threads a row; lanes is a power of two, 32 at most. */
template <typename Element, bool aligned> struct Channels {
    static constexpr int width = Chunk<Element>::width;
    size_t first, n_channels;
    int from, step;

    __device__ __forceinline__ Channels(size_t column, int lane, int lanes, size_t n)
        : first(column * lanes * width + (aligned ? lane * width : lane)), n_channels(n),
          from(aligned ? lane * width : lane), step(aligned ? 1 : lanes) {}

    __device__ __forceinline__ size_t at(int i) const { return first + (size_t)i * step; }

    /* Counted from the first one of the column of blocks. */
    __device__ __forceinline__ int in_column(int i) const { return from + i * step; }

    __device__ __forceinline__ bool has(int i) const { return at(i) < n_channels; }

    /* Zeros where it has none. */
    template <bool last = false> __device__ __forceinline__ Chunk<Element> load(const Element *row) const {
        Chunk<Element> chunk;
        chunk.set(make_uint4(0, 0, 0, 0));
        if constexpr (aligned) {
            if (has(0))
                chunk.set(last ? load_16_last(row + first) : load_16(row + first));
        } else {
#pragma unroll
            for (int i = 0; i < width; i++)
                if (has(i))
                    chunk.set_value(i, row[at(i)]);
        }
        return chunk;
    }

    __device__ __forceinline__ void store_codes(int8_t *row, const Chunk<Element> &chunk,
                                                const ChannelCoder coders[width]) const {
        uint32_t codes[width];
#pragma unroll
        for (int i = 0; i < width; i++)
            codes[i] = coders[i].code(chunk.value(i));
        if constexpr (aligned) {
            if (has(0))
                store_packed(row + first, PackedCodes<width>(codes));
        } else {
#pragma unroll
            for (int i = 0; i < width; i++)
                if (has(i))
                    row[at(i)] = (int8_t)codes[i];
        }
    }

    /* The same for channels of any scales: those of the thread are scales[0], scales[step] … */
    __device__ __forceinline__ void store_unusual_codes(int8_t *row, const Element *keys, const float *scales) const {
#pragma unroll 1
        for (int i = 0; i < width; i++)
            if (has(i)) {
                float scale = scales[i * step];
                row[at(i)] = channel_code(to_f32(keys[at(i)]), scale, channel_inverse(scale));
            }
    }

    __device__ __forceinline__ PackedCodes<width> load_codes(const int8_t *row) const {
        PackedCodes<width> packed;
        if constexpr (aligned) {
            if (has(0))
                load_packed(row + first, &packed);
        } else {
#pragma unroll
            for (int i = 0; i < width; i++)
                if (has(i))
                    packed.set(i, row[at(i)]);
        }
        return packed;
    }

    __device__ __forceinline__ void store_values(Element *row, const PackedCodes<width> &packed,
                                                 const float scales[width]) const {
        float values[width];
#pragma unroll
        for (int i = 0; i < width; i++)
            values[i] = channel_decode(packed.code(i), scales[i]);
        if constexpr (aligned) {
            if (has(0))
                store_chunk(row + first, values);
        } else {
#pragma unroll
            for (int i = 0; i < width; i++)
                if (has(i))
                    set_element(row + at(i), values[i]);
        }
    }
};

/* ---- Matrices and the blocks of threads that they are cut into */

template <typename Element> struct Matrix {
    const Element *keys; // (n_tokens, n_channels), as all but scales
    float *scales;       // (n_channels)
    int8_t *codes;
    Element *decoded;
    size_t n_tokens, n_channels;
    unsigned n_columns; /* of blocks */
    int lanes;          /* of a row, in kernels that read chunks */

    Matrix(const CudaChannelJob *job, size_t column_channels, int row_lanes)
        : keys(static_cast<const Element *>(job->keys)), scales(job->scales), codes(job->codes),
          decoded(static_cast<Element *>(job->decoded)), n_tokens(job->n_tokens), n_channels(job->n_channels),
          n_columns((unsigned)((job->n_channels + column_channels - 1) / column_channels)), lanes(row_lanes) {}
};

inline unsigned blocks_for(size_t n, size_t of_block) {
    return (unsigned)(n / of_block + (n % of_block != 0));
}

/* Lanes of a row: no more than it has chunks. */
inline int row_lanes(const CudaChannelJob *job) {
    size_t width = job->half_keys ? Chunk<uint16_t>::width : Chunk<float>::width;
    int lanes = warp_lanes;
    while (lanes > 1 && (size_t)lanes / 2 * width >= job->n_channels)
        lanes /= 2;
    return lanes;
}

/* LAUNCH(Element, aligned) with the types of a job. Rows are aligned where each has whole chunks. */
#define CHANNEL_SELECT(job, LAUNCH)                                                                                    \
    if ((job)->half_keys && (job)->n_channels % Chunk<uint16_t>::width == 0) {                                         \
        LAUNCH(uint16_t, true);                                                                                        \
    } else if ((job)->half_keys) {                                                                                     \
        LAUNCH(uint16_t, false);                                                                                       \
    } else if ((job)->n_channels % Chunk<float>::width == 0) {                                                         \
        LAUNCH(float, true);                                                                                           \
    } else {                                                                                                           \
        LAUNCH(float, false);                                                                                          \
    }

} // namespace

#endif
