/* FP16 rows as first operands of mma_16x8x16(): pieces of them in a warp's registers (fused_codes.cuh), each lane with
 * the elements that it would have codes of. Tokens that are not there are rows of zeros: their weight is 0, and what
 * memory holds in their place may be no number. */
#ifndef STOWKV_CUDA_FUSED_ROWS_CUH
#define STOWKV_CUDA_FUSED_ROWS_CUH

#include "cuda/fused_codes.cuh"

/* Of a piece: its tile, its first step, and how many steps it has. */
template <int STEPS> constexpr HOST_DEVICE int row_tile(int piece) {
    return piece / Piece<STEPS>::of_codes;
}

template <int STEPS> constexpr HOST_DEVICE int row_steps() {
    return STEPS / Piece<STEPS>::of_codes;
}

template <int STEPS> constexpr HOST_DEVICE int first_row_step(int piece) {
    return piece % Piece<STEPS>::of_codes * row_steps<STEPS>();
}

/* For rows g and 8 + g of the tile: eight elements of each block, or four of half a block. */
template <int STEPS>
__device__ __forceinline__ void load_key_rows(const uint8_t *rows, int piece, uint32_t n_tokens, uint32_t lane,
                                              uint32_t words[Piece<STEPS>::words]) {
    constexpr int per_row = Piece<STEPS>::words / 2;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        uint32_t token = 16 * row_tile<STEPS>(piece) + 8 * r + lane / 4;
        const uint8_t *row = rows + token * (STEPS * 32) + first_row_step<STEPS>(piece) * 32;
        uint32_t *to = words + r * per_row;
#pragma unroll
        for (int i = 0; i + 4 <= per_row; i += 4) {
            uint4 four = token < n_tokens ? load_16(row + i * 16 + lane % 4 * 16) : make_uint4(0, 0, 0, 0);
            to[i] = four.x;
            to[i + 1] = four.y;
            to[i + 2] = four.z;
            to[i + 3] = four.w;
        }
        if constexpr (per_row % 4 == 2) {
            uint2 two = token < n_tokens ? load_8(row + (per_row - 2) * 16 + lane % 4 * 8) : make_uint2(0, 0);
            to[per_row - 2] = two.x;
            to[per_row - 1] = two.y;
        }
    }
}

template <int STEPS> __device__ __forceinline__ void key_row_operand(const uint32_t *words, int step, uint32_t a[4]) {
    constexpr int per_row = Piece<STEPS>::words / 2;
    a[0] = words[2 * step];
    a[1] = words[per_row + 2 * step];
    a[2] = words[2 * step + 1];
    a[3] = words[per_row + 2 * step + 1];
}

/* For rows 2 j + {0, 1, 8, 9} of the tile: four elements of each block, or two of half a block. */
template <int STEPS>
__device__ __forceinline__ void load_value_rows(const uint8_t *rows, int piece, uint32_t n_tokens, uint32_t lane,
                                                uint32_t words[Piece<STEPS>::words]) {
    constexpr int per_row = Piece<STEPS>::words / 4;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        uint32_t token = 16 * row_tile<STEPS>(piece) + 2 * (lane % 4) + r % 2 + r / 2 * 8;
        const uint8_t *row = rows + token * (STEPS * 32) + first_row_step<STEPS>(piece) * 32;
        uint32_t *to = words + r * per_row;
#pragma unroll
        for (int i = 0; i + 2 <= per_row; i += 2) {
            uint2 two = token < n_tokens ? load_8(row + i * 32 + lane / 4 * 8) : make_uint2(0, 0);
            to[i] = two.x;
            to[i + 1] = two.y;
        }
        if constexpr (per_row % 2 == 1)
            to[per_row - 1] = token < n_tokens ? load_4(row + (per_row - 1) * 32 + lane / 4 * 4) : 0;
    }
}

/* Rows are elements here: pairs of tokens come together. */
template <int STEPS> __device__ __forceinline__ void value_row_operand(const uint32_t *words, int step, uint32_t a[4]) {
    constexpr int per_row = Piece<STEPS>::words / 4;
    uint32_t first = words[step], second = words[per_row + step];
    uint32_t third = words[2 * per_row + step], fourth = words[3 * per_row + step];
    a[0] = byte_permute(first, second, 0x5410);
    a[1] = byte_permute(first, second, 0x7632);
    a[2] = byte_permute(third, fourth, 0x5410);
    a[3] = byte_permute(third, fourth, 0x7632);
}

#endif
