/* Codes of a strip in the registers of a warp (cuda/fragments.h has their order): how they are loaded, expanded, and
 * handed to mma_16x8x16() as its first operand. A side of a strip (its keys, or its values) is read in pieces, which
 * all have the same number of words a lane, whatever is stored:
 *
 *     codes    a piece is the strip, or, for more than 8 steps, one of its tiles
 *     rows     a piece is a tile of FP16 rows, or, for more than 8 steps, half of its elements
 *
 * What depends on the width of codes is loading and expanding them, and what depends on their kind is the conversion to
 * FP16: each is a switch that a whole warp takes the same way, outside of the loops over products. */
#ifndef STOWKV_CUDA_FUSED_CODES_CUH
#define STOWKV_CUDA_FUSED_CODES_CUH

#include "cuda/code_halves.cuh"

/* Of heads of STEPS * 16 elements. Blocks are of 32 elements; the last is half of one where STEPS is odd. */
template <int STEPS> struct Piece {
    static constexpr int blocks = (STEPS + 1) / 2;
    static constexpr int words = 4 * (STEPS < 8 ? STEPS : 8); /* of a lane */
    static constexpr int of_codes = STEPS > 8 ? 2 : 1;        /* pieces of a strip */
    static constexpr int of_rows = 2 * of_codes;
    static constexpr int code_tiles = 2 / of_codes;
    static constexpr int row_blocks = blocks / of_codes;
    static_assert(STEPS <= 8 || STEPS == 16);
};

/* ---- Loading */

/* n words of a lane of a plane, which begins, or goes on after a multiple of four words, at `plane`. */
template <int N> __device__ __forceinline__ void load_lane_words(const uint8_t *plane, int lane, uint32_t *words) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        uint4 four = load_16(plane + (i * FRAGMENT_LANES + lane) * 16);
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
    }
    const uint8_t *behind = plane + N / 4 * FRAGMENT_LANES * 16;
    if constexpr (N % 4 >= 2) {
        uint2 two = load_8(behind + lane * 8);
        words[N / 4 * 4] = two.x;
        words[N / 4 * 4 + 1] = two.y;
        behind += FRAGMENT_LANES * 8;
    }
    if constexpr (N % 2 == 1)
        words[N - 1] = load_4(behind + lane * 4);
}

/* fragment_plane(), of the bits that are left */
constexpr HOST_DEVICE int first_plane(int bits) {
    return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/* Plane after plane, the widest first, into words that follow each other. */
template <int STEPS, int BITS>
__device__ __forceinline__ void load_planes(const uint8_t *strip, int piece, int lane, uint32_t *words) {
    constexpr int plane = first_plane(BITS), n_words = (4 * STEPS * plane + 7) / 8,
                  n = n_words / Piece<STEPS>::of_codes;
    static_assert(Piece<STEPS>::of_codes == 1 || n % 4 == 0);
    load_lane_words<n>(strip + piece * n * FRAGMENT_LANES * 4, lane, words);
    if constexpr (BITS > plane)
        load_planes<STEPS, BITS - plane>(strip + n_words * FRAGMENT_LANES * 4, piece, lane, words + n);
}

template <int STEPS>
__device__ __forceinline__ void load_codes(const uint8_t *strip, int bits, int piece, int lane,
                                           uint32_t words[Piece<STEPS>::words]) {
    switch (bits) {
    case 8:
        return load_planes<STEPS, 8>(strip, piece, lane, words);
    case 7:
        return load_planes<STEPS, 7>(strip, piece, lane, words);
    case 6:
        return load_planes<STEPS, 6>(strip, piece, lane, words);
    case 5:
        return load_planes<STEPS, 5>(strip, piece, lane, words);
    case 4:
        return load_planes<STEPS, 4>(strip, piece, lane, words);
    case 3:
        return load_planes<STEPS, 3>(strip, piece, lane, words);
    case 2:
        return load_planes<STEPS, 2>(strip, piece, lane, words);
    default:
        return load_planes<STEPS, 1>(strip, piece, lane, words);
    }
}

/* ---- Expanding */

/* Adds the planes from bit SHIFT on to the bytes of all quads. */
template <int STEPS, int BITS, int SHIFT>
__device__ __forceinline__ void expand_planes(const uint32_t *words, uint32_t *quads) {
    constexpr int plane = first_plane(BITS - SHIFT), per_word = 8 / plane, n = Piece<STEPS>::words;
    constexpr uint32_t mask = ((1u << plane) - 1) * 0x01010101u << SHIFT;
#pragma unroll
    for (int i = 0; i < n; i++) {
        int right = i % per_word * plane - SHIFT;
        uint32_t word = words[i / per_word];
        uint32_t bits = (right >= 0 ? word >> right : word << -right) & mask;
        quads[i] = SHIFT == 0 ? bits : quads[i] | bits;
    }
    if constexpr (SHIFT + plane < BITS)
        expand_planes<STEPS, BITS, SHIFT + plane>(words + (n + per_word - 1) / per_word, quads);
}

/* To bytes; what are bytes already, or nibbles, stays. A byte is factor * code. */
template <int STEPS>
__device__ __forceinline__ void expand_codes(uint32_t words[Piece<STEPS>::words], int bits, int factor) {
    constexpr int n = Piece<STEPS>::words;
    uint32_t quads[n];
    switch (bits) {
    case 7:
        expand_planes<STEPS, 7, 0>(words, quads);
        break;
    case 6:
        expand_planes<STEPS, 6, 0>(words, quads);
        break;
    case 5:
        expand_planes<STEPS, 5, 0>(words, quads);
        break;
    case 3:
        expand_planes<STEPS, 3, 0>(words, quads);
        break;
    case 2:
        expand_planes<STEPS, 2, 0>(words, quads);
        break;
    case 1:
        expand_planes<STEPS, 1, 0>(words, quads);
#pragma unroll
        for (int i = 0; i < n; i++)
            quads[i] <<= factor - 1;
        break;
    default:
        return;
    }
#pragma unroll
    for (int i = 0; i < n; i++)
        words[i] = quads[i];
}

#endif
