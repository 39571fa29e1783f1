/* cuda/primitives.cuh for kernels on the host: what each of its functions means, value by value. The layouts of
 * fragments are those of the PTX instruction set, "Matrix Fragments for mma.m16n8k16" and "movmatrix". */
#ifndef STOWKV_CUDA_SHIM_PRIMITIVES_H
#define STOWKV_CUDA_SHIM_PRIMITIVES_H

#include "base/half.h"
#include "tests/cuda_shim/threads.h"

#define CUDA_SHIM_PLACE const cuda_shim::Place &place = cuda_shim::Place::current()

namespace cuda_shim {

template <typename T> T load(const void *p, const Place &place) {
    check_aligned(p, sizeof(T), place);
    T v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <typename T> void store(void *p, const T &v, const Place &place) {
    check_aligned(p, sizeof(T), place);
    memcpy(p, &v, sizeof v);
}

/* To nearest, ties to even, in one rounding: |x| in units of the last place of the half below it. */
inline uint16_t half_from_double(double x) {
    uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    double magnitude = fabs(x);
    if (std::isnan(x))
        return 0x7fff;
    if (magnitude >= 65520)
        return sign | 0x7c00;
    int exponent = magnitude < 0x1p-14 ? -14 : std::ilogb(magnitude);
    int units = (int)nearbyint(std::ldexp(magnitude, 10 - exponent));
    return (uint16_t)(sign | ((exponent + 14) * 1024 + units));
}

/* Sums and products of two halves are exact in double. */
template <typename Operation> uint32_t each_half(uint32_t a, uint32_t b, Operation operation) {
    uint16_t low = half_from_double(operation(half_to_float((uint16_t)a), half_to_float((uint16_t)b)));
    uint16_t high = half_from_double(operation(half_to_float((uint16_t)(a >> 16)), half_to_float((uint16_t)(b >> 16))));
    return low | (uint32_t)high << 16;
}

/* The sum is exact in double too, but where the product is less than 2^-30 of c, or too large for a half: one rounding
 * again. */
inline uint16_t half_fma(uint16_t a, uint16_t b, uint16_t c) {
    return half_from_double((double)half_to_float(a) * half_to_float(b) + half_to_float(c));
}

template <typename T> struct Shuffle {
    T v;
    int from;
};

template <typename T> void shuffle(const Shuffle<T> *in, T *out) {
    for (int lane = 0; lane < n_lanes; lane++)
        out[lane] = in[in[lane].from & (n_lanes - 1)].v;
}

/* Pairs of lanes (i, i ^ mask) for masks 16 to 1, as warp_sum() of cuda/primitives.cuh. */
inline void butterfly_sum(const float *in, float *out) {
    float v[n_lanes];
    memcpy(v, in, sizeof v);
    for (int mask = n_lanes / 2; mask > 0; mask /= 2) {
        for (int lane = 0; lane < n_lanes; lane++)
            out[lane] = v[lane] + v[lane ^ mask];
        memcpy(v, out, sizeof v);
    }
}

inline void largest(const float *in, float *out) {
    float v = in[0];
    for (int lane = 1; lane < n_lanes; lane++)
        v = fmaxf(v, in[lane]);
    std::fill(out, out + n_lanes, v);
}

struct Fragments {
    uint32_t a[4], b[2];
};

struct Accumulator {
    float d[4];
};

void multiply(const Fragments *in, Accumulator *out); // (32) each

inline void transpose(const uint32_t *in, uint32_t *out) {
    auto at = [&](int row, int column) { return in[4 * row + column / 2] >> column % 2 * 16 & 0xffff; };
    for (int lane = 0; lane < n_lanes; lane++) {
        int row = lane / 4, column = lane % 4 * 2;
        out[lane] = at(column, row) | at(column + 1, row) << 16;
    }
}

} // namespace cuda_shim

inline uint4 load_16(const void *p, CUDA_SHIM_PLACE) {
    return cuda_shim::load<uint4>(p, place);
}

inline uint2 load_8(const void *p, CUDA_SHIM_PLACE) {
    return cuda_shim::load<uint2>(p, place);
}

inline uint32_t load_4(const void *p, CUDA_SHIM_PLACE) {
    return cuda_shim::load<uint32_t>(p, place);
}

inline uint4 load_16_last(const void *p, CUDA_SHIM_PLACE) {
    return cuda_shim::load<uint4>(p, place);
}

inline void store_16_streaming(void *p, uint4 v, CUDA_SHIM_PLACE) {
    cuda_shim::store(p, v, place);
}

inline void store_8_streaming(void *p, uint2 v, CUDA_SHIM_PLACE) {
    cuda_shim::store(p, v, place);
}

inline void store_4_streaming(void *p, uint32_t v, CUDA_SHIM_PLACE) {
    cuda_shim::store(p, v, place);
}

inline float f32_from_bits(uint32_t bits) {
    return float_from_bits(bits);
}

inline uint32_t f32_bits(float x) {
    return float_to_bits(x);
}

inline float half_to_f32(uint16_t half) {
    return half_to_float(half);
}

inline uint16_t f32_to_half(float x) {
    return half_from_float(x);
}

inline uint32_t half2_from_f32(float low, float high) {
    return f32_to_half(low) | (uint32_t)f32_to_half(high) << 16;
}

inline uint32_t half2_add(uint32_t a, uint32_t b) {
    return cuda_shim::each_half(a, b, [](double x, double y) { return x + y; });
}

inline uint32_t half2_sub(uint32_t a, uint32_t b) {
    return cuda_shim::each_half(a, b, [](double x, double y) { return x - y; });
}

inline uint32_t half2_mul(uint32_t a, uint32_t b) {
    return cuda_shim::each_half(a, b, [](double x, double y) { return x * y; });
}

inline uint32_t half2_fma(uint32_t a, uint32_t b, uint32_t c) {
    uint16_t low = cuda_shim::half_fma((uint16_t)a, (uint16_t)b, (uint16_t)c);
    uint16_t high = cuda_shim::half_fma((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16));
    return low | (uint32_t)high << 16;
}

inline uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t choice = selector >> 4 * i & 15;
        uint32_t byte = (uint32_t)(bytes >> 8 * (choice & 7)) & 0xff;
        if (choice & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

inline int dot_4x8(int a, int b, int c) {
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}

inline float exp2_fast(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y; // NaN stays
}

template <typename T> T warp_xor(T v, int mask, CUDA_SHIM_PLACE) {
    using namespace cuda_shim;
    return meet<Shuffle<T>, T, shuffle<T>>("warp_xor", {v, own_lane() ^ mask}, place);
}

template <typename T> T warp_broadcast(T v, int lane, CUDA_SHIM_PLACE) {
    using namespace cuda_shim;
    return meet<Shuffle<T>, T, shuffle<T>>("warp_broadcast", {v, lane}, place);
}

inline float warp_sum(float v, CUDA_SHIM_PLACE) {
    return cuda_shim::meet<float, float, cuda_shim::butterfly_sum>("warp_sum", v, place);
}

inline float warp_max(float v, CUDA_SHIM_PLACE) {
    return cuda_shim::meet<float, float, cuda_shim::largest>("warp_max", v, place);
}

inline void mma_16x8x16(float d[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                        CUDA_SHIM_PLACE) {
    using namespace cuda_shim;
    Accumulator products = meet<Fragments, Accumulator, multiply>("mma_16x8x16", {{a0, a1, a2, a3}, {b0, b1}}, place);
    for (int i = 0; i < 4; i++)
        d[i] += products.d[i];
}

inline uint32_t transpose_8x8(uint32_t v, CUDA_SHIM_PLACE) {
    return cuda_shim::meet<uint32_t, uint32_t, cuda_shim::transpose>("transpose_8x8", v, place);
}

inline void copy_16_async(void *shared, const void *global, bool valid, CUDA_SHIM_PLACE) {
    cuda_shim::copy_later(shared, global, valid, place);
}

inline void copy_commit() {
    cuda_shim::close_copies();
}

template <int N> void copy_wait() {
    cuda_shim::finish_copies(N);
}

#undef CUDA_SHIM_PLACE

#endif
