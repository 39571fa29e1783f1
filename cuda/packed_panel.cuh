/* Where a panel of coded weights (model/packed_matrix.h) has what: for kernels, with the format as a constant. */
#ifndef STOWKV_CUDA_PACKED_PANEL_CUH
#define STOWKV_CUDA_PACKED_PANEL_CUH

#include "cuda/primitives.cuh"
#include "model/packed_format.h"

template <TensorType type> struct FormatOf;
#define FORMAT_OF(type, bits, bias, run, scales)                                                                       \
    template <> struct FormatOf<type> { static constexpr PackedFormat format = {bits, bias, run, scales}; };
CODED_TYPES(FORMAT_OF)
#undef FORMAT_OF

/* Each function gives the beginning of a list with an item for each of the panel's 16 rows. */
template <TensorType type> struct PackedPanel {
    static constexpr PackedFormat format = FormatOf<type>::format;
    static constexpr int bits = format.bits, bias = format.bias, run = format.run;
    static constexpr int runs = PACKED_BLOCK / run; /* of a block */
    static constexpr PackedScales scales = format.scales;
    static constexpr bool has_factors = scales == PACKED_K || scales == PACKED_K_MIN;
    static constexpr bool has_minima = packed_has_minima(&format);

    /* Scales of a block, or of the 256 columns around it: FP16, or F32 for PACKED_FLOAT. */
    static __device__ __forceinline__ const uint8_t *block_scales(const uint8_t *panel, size_t block) {
        constexpr size_t blocks = packed_stripe_blocks(&format), stripe_bytes = packed_stripe_bytes(&format);
        constexpr size_t step = scales == PACKED_HALF ? PANEL_ROWS * sizeof(uint16_t) : 0;
        return panel + block / blocks * stripe_bytes + block % blocks * step;
    }

    /* FP16 */
    static __device__ __forceinline__ const uint8_t *block_minima(const uint8_t *panel, size_t block) {
        return block_scales(panel, block) + PANEL_ROWS * sizeof(uint16_t);
    }

    /* INT8 factors of a run's scales; behind them, unsigned, those of its minima. */
    static __device__ __forceinline__ const uint8_t *run_factors(const uint8_t *panel, size_t block, int number) {
        constexpr size_t blocks = packed_stripe_blocks(&format), first = packed_k_factors(&format);
        constexpr size_t run_bytes = (has_minima ? 2 : 1) * PANEL_ROWS;
        return block_scales(panel, block) + first + (block % blocks * runs + number) * run_bytes;
    }

    /* The first piece of a block's codes: 4 bytes of each row; the others follow. */
    static __device__ __forceinline__ const uint8_t *block_codes(const uint8_t *panel, size_t block) {
        constexpr size_t blocks = packed_stripe_blocks(&format), stripe_bytes = packed_stripe_bytes(&format);
        constexpr size_t scales_bytes = packed_scales_bytes(&format), block_bytes = packed_block_bytes(&format);
        return panel + block / blocks * stripe_bytes + scales_bytes + block % blocks * block_bytes;
    }
};

__device__ __forceinline__ float half_at(const uint8_t *halves, int row) {
    return half_to_f32(reinterpret_cast<const uint16_t *>(halves)[row]);
}

/* Scale and minimum of a run of a row's columns, with the roundings of base/block_decode.c. */
template <TensorType type>
__device__ __forceinline__ void row_scale(const uint8_t *panel, size_t block, int run, int row, float *scale,
                                          float *minimum) {
    using Panel = PackedPanel<type>;
    const uint8_t *scales = Panel::block_scales(panel, block);
    *minimum = 0;
    if constexpr (Panel::scales == PACKED_FLOAT)
        *scale = reinterpret_cast<const float *>(scales)[row];
    else
        *scale = half_at(scales, row);
    if constexpr (Panel::has_minima)
        *minimum = half_at(Panel::block_minima(panel, block), row);
    if constexpr (Panel::has_factors) {
        const uint8_t *factors = Panel::run_factors(panel, block, run);
        *scale *= (float)(int8_t)factors[row];
        if constexpr (Panel::has_minima)
            *minimum *= -(float)factors[PANEL_ROWS + row];
    }
}

/* The codes of a step's four columns, each in a byte, in its bits from UP on. `pieces` are a row's words of the planes
 * from that of bit FROM on. */
template <int BITS, int UP, int FROM = 0>
__device__ __forceinline__ uint32_t step_codes(const uint32_t (&pieces)[BITS], int step) {
    constexpr int plane = (int)widest_plane(BITS - FROM), to = FROM + UP;
    constexpr uint32_t mask = plane_mask(plane) << to;
    int at = step / plane * plane;
    uint32_t word = pieces[FROM + step % plane];
    uint32_t codes = (at > to ? word >> (at - to) : word << (to - at)) & mask;
    if constexpr (FROM + plane < BITS)
        codes |= step_codes<BITS, UP, FROM + plane>(pieces, step);
    return codes;
}

#endif
