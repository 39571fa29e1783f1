/* The encoding of a group by the threads of a block, to a fragment record. Numbers are (n_tokens, head_dim) in F32, in
 * device memory, rotated already where they are to be. The arithmetic is the host encoders' (kvcache/codec/fit.h), in
 * their order of roundings: a record has the bits that KV_FRAGMENT_RECORDS makes of the codec's. */
#ifndef STOWKV_CUDA_ENCODE_CUH
#define STOWKV_CUDA_ENCODE_CUH

#include "cuda/fragments.cuh"
#include "kvcache/codec/fit.h"

#define ENCODE_THREADS 256

/* ---- The orthonormal Walsh-Hadamard transform of rows, kv_rotate() */

__device__ inline void rotate_rows(float *rows, uint32_t n_rows, uint32_t n) { // (n_rows, n), in place
    float norm = (float)(1 / sqrt((double)n));
    for (uint32_t half = 1; half < n; half *= 2) {
        for (uint32_t i = threadIdx.x; i < n_rows * n / 2; i += blockDim.x) {
            uint32_t row = i / (n / 2), k = i % (n / 2);
            float *at = rows + row * n + k / half * 2 * half + k % half;
            float a = at[0], b = at[half];
            at[0] = a + b;
            at[half] = a - b;
        }
        __syncthreads();
    }
    for (uint32_t i = threadIdx.x; i < n_rows * n; i += blockDim.x)
        rows[i] *= norm;
    __syncthreads();
}

/* ---- Scales */

__device__ inline KvRange range_of(const float *x, uint32_t n, uint32_t stride) {
    KvRange range = {x[0], x[0], 0.0f, 0.0f};
    for (uint32_t i = 0; i < n; i++, x += stride) {
        range.low = *x < range.low ? *x : range.low;
        range.high = *x > range.high ? *x : range.high;
        range.sum += *x < 0 ? -*x : *x;
        range.taint += *x - *x;
    }
    return range;
}

/* Of consecutive numbers, in the host's order: eight columns, then their union. */
__device__ inline KvRange range_of_run(const float *x, uint32_t n) {
    uint32_t width = n % 8 == 0 ? 8 : 1;
    KvRange range = range_of(x, n / width, width);
    for (uint32_t j = 1; j < width; j++) {
        KvRange column = range_of(x + j, n / width, width);
        range.low = column.low < range.low ? column.low : range.low;
        range.high = column.high > range.high ? column.high : range.high;
        range.sum += column.sum;
        range.taint += column.taint;
    }
    return range;
}

__device__ inline void put_half(uint8_t *record, uint32_t part, uint32_t index, uint16_t half) {
    *(uint16_t *)(record + part + index * sizeof half) = half;
}

__device__ inline void put_fit(const FragmentShape *shape, uint32_t token, uint32_t dim, KvFit fit, uint8_t *record) {
    uint32_t index = fragment_scale_index(shape, token, dim);
    put_half(record, shape->scales, index, fit.scale);
    if (shape->has_minima)
        put_half(record, shape->minima, index, fit.minimum);
}

__device__ inline void fit_channels(const FragmentShape *shape, const float *x, uint8_t *record) {
    for (uint32_t dim = threadIdx.x; dim < shape->head_dim; dim += blockDim.x) {
        KvRange range = range_of(x + dim, shape->n_tokens, shape->head_dim);
        put_fit(shape, 0, dim, kv_fit_range(shape->kind, shape->bits, &range, shape->n_tokens), record);
    }
}

__device__ inline void fit_blocks(const FragmentShape *shape, const float *x, uint8_t *record) {
    for (uint32_t i = threadIdx.x; i < shape->n_tokens * shape->n_blocks; i += blockDim.x) {
        KvRange range = range_of_run(x + i * shape->block, shape->block);
        put_fit(shape, i / shape->n_blocks, i % shape->n_blocks * shape->block,
                kv_fit_range(shape->kind, shape->bits, &range, shape->block), record);
    }
}

/* nf4's scales need their least and largest first. */
__device__ inline void fit_nf4(const FragmentShape *shape, const float *x, uint8_t *record) {
    CUDA_SHARED(float, lows, [ENCODE_THREADS]);
    CUDA_SHARED(float, highs, [ENCODE_THREADS]);
    uint32_t n_blocks = shape->n_tokens * shape->n_blocks;
    float low = INFINITY, high = 0.0f;
    for (uint32_t i = threadIdx.x; i < n_blocks; i += blockDim.x) {
        float scale = kv_nf4_block_scale(x + i * KV_NF4_BLOCK);
        low = scale < low ? scale : low;
        high = scale > high ? scale : high;
    }
    lows[threadIdx.x] = low;
    highs[threadIdx.x] = high;
    __syncthreads();
    for (uint32_t i = 0; i < ENCODE_THREADS; i++) {
        low = lows[i] < low ? lows[i] : low;
        high = highs[i] > high ? highs[i] : high;
    }
    uint16_t minimum = kv_nf4_minimum(low, high), step = kv_nf4_step(minimum, high);
    if (threadIdx.x == 0) {
        put_half(record, shape->scales, 0, minimum);
        put_half(record, shape->scales, 1, step);
    }
    KvNf4Scales scales = {half_to_float(minimum), half_to_float(step)};
    for (uint32_t i = threadIdx.x; i < n_blocks; i += blockDim.x) {
        uint32_t index = fragment_scale_index(shape, i / shape->n_blocks, i % shape->n_blocks * shape->block);
        record[shape->scales + FRAGMENT_NF4_AT + index] =
            kv_nf4_scale_code(&scales, kv_nf4_block_scale(x + i * KV_NF4_BLOCK));
    }
    __syncthreads();
}

/* ---- Codes, one a byte: (n_tokens, head_dim) */

/* GGML's formulas make a block's scale and codes together. */
__device__ inline void encode_ggml_block(const FragmentShape *shape, const float *x, uint32_t token, uint32_t dim,
                                         uint8_t *codes, uint8_t *record) {
    float minimum = 0.0f, taint = 0.0f, d;
    for (int j = 0; j < KV_GGML_BLOCK; j++)
        taint += x[j] - x[j];
    KvFit fit = {HALF_NAN, HALF_NAN};
    if (taint != 0.0f) {
        for (int j = 0; j < KV_GGML_BLOCK; j++)
            codes[j] = 0;
    } else {
        d = shape->kind == KV_CODE_SIGNED     ? kv_q8_0_codes(x, codes)
            : shape->kind == KV_CODE_UNSIGNED ? kv_asymmetric_codes(x, shape->bits, codes, &minimum)
                                              : kv_symmetric_codes(x, shape->bits, codes);
        fit.scale = half_from_float(d);
        fit.minimum = half_from_float(minimum);
    }
    put_fit(shape, token, dim, fit, record);
}

__device__ inline void encode_ggml(const FragmentShape *shape, const float *x, uint8_t *codes, uint8_t *record) {
    for (uint32_t i = threadIdx.x; i < shape->n_tokens * shape->n_blocks; i += blockDim.x) {
        uint32_t token = i / shape->n_blocks, dim = i % shape->n_blocks * KV_GGML_BLOCK;
        encode_ggml_block(shape, x + i * KV_GGML_BLOCK, token, dim, codes + i * KV_GGML_BLOCK, record);
    }
}

/* Under the scale as its code says; where that is the code of NaN, codes do not matter, but are the host's. */
__device__ inline uint8_t nf4_code(const FragmentShape *shape, const uint8_t *record, uint32_t token, uint32_t dim,
                                   float x) {
    const uint8_t *scales = record + shape->scales;
    float scale_code = scales[FRAGMENT_NF4_AT + fragment_scale_index(shape, token, dim)];
    float scale = half_load(scales) + half_load(scales + 2) * scale_code;
    uint32_t code = 0;
#pragma unroll /* levels are constants then, not a table in local memory */
    for (uint32_t i = 0; i < 15; i++)
        code += kv_nf4_is_above(x, i, kv_nf4_midpoint(nf4_level(i), nf4_level(i + 1), scale));
    return (uint8_t)code;
}

__device__ inline void choose_codes(const FragmentShape *shape, const float *x, const uint8_t *record, uint8_t *codes) {
    for (uint32_t i = threadIdx.x; i < shape->n_tokens * shape->head_dim; i += blockDim.x) {
        uint32_t token = i / shape->head_dim, dim = i % shape->head_dim;
        if (shape->kind == KV_CODE_NF4) {
            codes[i] = nf4_code(shape, record, token, dim, x[i]);
            continue;
        }
        float scale = fragment_scale(shape, record, token, dim), minimum = 0.0f;
        if (shape->has_minima)
            minimum = half_load(record + shape->minima + fragment_scale_index(shape, token, dim) * sizeof(uint16_t));
        codes[i] = kv_scaled_code(shape->kind, shape->bits, x[i], scale, minimum);
    }
}

/* ---- The words of fragments */

/* The code of a place as fragments have it. Elements beyond head_dim are 0. */
__device__ inline uint32_t code_at(const FragmentShape *shape, const uint8_t *codes, uint32_t strip, uint32_t lane,
                                   uint32_t quad, uint32_t byte) {
    if (quad >= fragment_quads(shape->n_steps))
        return 0;
    uint32_t token = fragment_token(shape->side, shape->n_steps, strip, lane, quad, byte);
    uint32_t dim = fragment_dim(shape->side, shape->n_steps, lane, quad, byte);
    if (dim >= shape->head_dim)
        return 0;
    uint32_t code = codes[token * shape->head_dim + dim];
    return shape->kind == KV_CODE_SIGNED ? code ^ 0x80 : shape->kind == KV_CODE_SIGN ? code ^ 1 : code;
}

__device__ inline void pack_plane(const FragmentShape *shape, const uint8_t *codes, uint32_t shift, uint32_t plane,
                                  uint8_t *plane_at) {
    uint32_t n_words = fragment_words(shape->n_steps, plane), n_strips = shape->n_tokens / FRAGMENT_STRIP;
    for (uint32_t i = threadIdx.x; i < n_strips * n_words * FRAGMENT_LANES; i += blockDim.x) {
        uint32_t lane = i % FRAGMENT_LANES, word = i / FRAGMENT_LANES % n_words, strip = i / FRAGMENT_LANES / n_words;
        uint32_t bits = 0;
        for (uint32_t q = 0; q < 8 / plane; q++)
            for (uint32_t byte = 0; byte < 4; byte++) {
                uint32_t code = code_at(shape, codes, strip, lane, word * (8 / plane) + q, byte);
                bits |= (code >> shift & ((1u << plane) - 1)) << (8 * byte + q * plane);
            }
        *(uint32_t *)(plane_at + strip * shape->strip_bytes + fragment_word_at(n_words, word, lane)) = bits;
    }
}

__device__ inline void pack_fragments(const FragmentShape *shape, const uint8_t *codes, uint8_t *record) {
    for (uint32_t shift = 0, plane, bits = (uint32_t)shape->bits; shift < bits; shift += plane) {
        plane = fragment_plane(bits, shift);
        pack_plane(shape, codes, shift, plane, record);
        record += fragment_plane_bytes(shape->n_steps, plane);
    }
}

/* ---- A group */

__device__ inline void encode_halves(const FragmentShape *shape, const float *x, uint8_t *record) {
    for (uint32_t i = threadIdx.x; i < shape->n_tokens * shape->head_dim; i += blockDim.x)
        put_half(record, 0, i, x[i] - x[i] == 0.0f ? half_saturated(x[i]) : HALF_NAN);
}

/* By all threads of the block, which must have written x; ends with a barrier. */
__device__ inline void encode_group(const FragmentShape *shape,
                                    const float *x,    // (n_tokens, head_dim)
                                    uint8_t *codes,    // (n_tokens, head_dim) shared
                                    uint8_t *record) { // (record_bytes)
    if (shape->kind == KV_CODE_HALF) {
        encode_halves(shape, x, record);
    } else {
        if (shape->is_ggml) {
            encode_ggml(shape, x, codes, record);
        } else {
            if (shape->kind == KV_CODE_NF4)
                fit_nf4(shape, x, record);
            else if (shape->by_channel)
                fit_channels(shape, x, record);
            else
                fit_blocks(shape, x, record);
            __syncthreads();
            choose_codes(shape, x, record, codes);
        }
        __syncthreads();
        pack_fragments(shape, codes, record);
    }
    __syncthreads();
}

#endif
