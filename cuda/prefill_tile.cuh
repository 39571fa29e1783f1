/* A tile of keys and values in shared memory, in FP16 and in the order of the second operands of mma_16x8x16(): decoded
 * once, scales applied, for all queries of a block. Fragment records have that order already, a quad of codes being the
 * two words of an operand; FP16 rows are dealt out alike (fragment_key_dim(), fragment_value_dim()).
 *
 * A number is rounded to FP16 once behind its exact code, and nf4's levels and scales before that. */
#ifndef STOWKV_CUDA_PREFILL_TILE_CUH
#define STOWKV_CUDA_PREFILL_TILE_CUH

#include "cuda/code_halves.cuh"
#include "cuda/prefill_sections.cuh"

template <int STEPS, int TOKENS> struct PrefillTile {
    uint4 values[TOKENS / 16][STEPS][32]; /* of 16 tokens: both operands of a step, for its two quads */
    uint2 keys[TOKENS / 8][STEPS * 32];   /* of 8 tokens: an operand for each step, see key_operand() */
};

/* Where the operand of 8 keys for a step is. Those of a block's two steps are side by side. */
template <int STEPS> __device__ __forceinline__ uint32_t key_operand(uint32_t step, uint32_t lane) {
    bool in_half = STEPS % 2 == 1 && step == STEPS - 1;
    return in_half ? step * 32 + lane : step / 2 * 64 + lane * 2 + step % 2;
}

/* ---- Rows */

/* The run of a token, and where it is in there. */
struct RunToken {
    uint32_t run, token;
};

__device__ __forceinline__ RunToken run_token(const PrefillSection *section, uint32_t token) {
    bool is_second = token >= section->n_in_first;
    RunToken at = {is_second, is_second ? token - section->n_in_first : token};
    return at;
}

template <int STEPS>
__device__ __forceinline__ const uint8_t *row_at(const PrefillSection *section, KvSide side, uint32_t token) {
    RunToken at = run_token(section, token);
    return section->first[at.run][side] + (size_t)at.token * (STEPS * 32);
}

/* Tokens from `begin` on; those that are not there become 0, since what is in memory in their place may be no number.
 * 16 bytes of a row are as much of an operand. */
template <int STEPS, int TOKENS>
__device__ __forceinline__ void load_key_rows(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                              uint32_t begin, uint32_t warp, uint32_t n_warps, uint32_t lane) {
    constexpr int blocks = STEPS / 2;
    for (uint32_t i = warp; i < TOKENS / 8 * blocks; i += n_warps) {
        uint32_t eight = i / blocks, block = i % blocks, token = begin + eight * 8 + lane / 4;
        bool is_there = token < section->n_tokens;
        const uint8_t *row = row_at<STEPS>(section, KV_KEYS, is_there ? token : begin);
        copy_16_async(&tile->keys[eight][block * 64 + lane * 2], row + block * 64 + lane % 4 * 16, is_there);
    }
    if constexpr (STEPS % 2 == 1)
        for (uint32_t eight = warp; eight < TOKENS / 8; eight += n_warps) {
            uint32_t token = begin + eight * 8 + lane / 2;
            bool is_there = token < section->n_tokens;
            if (lane < 16) {
                const uint8_t *row = row_at<STEPS>(section, KV_KEYS, is_there ? token : begin);
                copy_16_async(&tile->keys[eight][(STEPS - 1) * 32 + lane * 2], row + (STEPS - 1) * 32 + lane % 2 * 16,
                              is_there);
            }
        }
}

/* Two elements of the tokens 2 j + {0, 1, 8, 9}, as both operands of each element. */
__device__ __forceinline__ uint4 value_operands(uint32_t t0, uint32_t t1, uint32_t t8, uint32_t t9) {
    return make_uint4(byte_permute(t0, t1, 0x5410), byte_permute(t8, t9, 0x5410), byte_permute(t0, t1, 0x7632),
                      byte_permute(t8, t9, 0x7632));
}

template <int STEPS, int TOKENS>
__device__ __forceinline__ void load_value_rows(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                                uint32_t begin, uint32_t warp, uint32_t n_warps, uint32_t lane) {
    constexpr int blocks = (STEPS + 1) / 2;
#pragma unroll 2
    for (uint32_t i = warp; i < TOKENS / 16 * blocks; i += n_warps) {
        uint32_t sixteen = i / blocks, block = i % blocks;
        bool in_half = STEPS % 2 == 1 && block == blocks - 1;
        uint2 four[4];
#pragma unroll
        for (uint32_t r = 0; r < 4; r++) {
            uint32_t token = begin + sixteen * 16 + lane % 4 * 2 + r % 2 + r / 2 * 8;
            four[r] = make_uint2(0, 0);
            if (token >= section->n_tokens)
                continue;
            const uint8_t *row = row_at<STEPS>(section, KV_VALUES, token) + block * 64;
            if (in_half)
                four[r].x = *(const uint32_t *)(row + lane / 4 * 4);
            else
                four[r] = *(const uint2 *)(row + lane / 4 * 8);
        }
        tile->values[sixteen][2 * block][lane] = value_operands(four[0].x, four[1].x, four[2].x, four[3].x);
        if (!in_half)
            tile->values[sixteen][2 * block + 1][lane] = value_operands(four[0].y, four[1].y, four[2].y, four[3].y);
    }
}

/* ---- Codes */

/* One side of a strip of a record. */
struct StripCodes {
    const FragmentShape *shape;
    const uint8_t *codes, *scales, *minima; /* scales and minima of the whole record */
    uint32_t before;                        /* index of the strip's scales by token in their block */
};

__device__ __forceinline__ StripCodes strip_at(const PrefillSection *section, KvSide side, uint32_t token) {
    const FragmentShape *shape = &section->shape[side];
    RunToken at = run_token(section, token);
    const uint8_t *record = section->first[at.run][side] + (size_t)(at.token / shape->n_tokens) * shape->record_bytes;
    uint32_t in_record = at.token % shape->n_tokens;
    StripCodes strip = {shape, record + in_record / FRAGMENT_STRIP * shape->strip_bytes, record + shape->scales,
                        record + shape->minima, in_record};
    return strip;
}

/* The two quads of a step, `product` being its number in the strip: of a single word where codes have 4 bits, else a
 * byte for each code. */
template <int STEPS>
__device__ __forceinline__ void load_quads(const StripCodes *strip, uint32_t product, uint32_t lane,
                                           uint32_t quads[2]) {
    const uint32_t bits = (uint32_t)strip->shape->bits;
    const uint8_t *plane_at = strip->codes;
    if (bits == 8) {
        uint2 two = *(const uint2 *)(plane_at + fragment_word_at(4 * STEPS, 2 * product, lane));
        quads[0] = two.x;
        quads[1] = two.y;
        return;
    }
    if (bits == 4) {
        quads[0] = *(const uint32_t *)(plane_at + fragment_word_at(2 * STEPS, product, lane));
        quads[1] = 0;
        return;
    }
    quads[0] = quads[1] = 0;
    for (uint32_t shift = 0, plane; shift < bits; shift += plane) {
        plane = fragment_plane(bits, shift);
        uint32_t n_words = fragment_words(STEPS, plane), mask = ((1u << plane) - 1) * 0x01010101u;
        uint32_t word = *(const uint32_t *)(plane_at + fragment_word_at(n_words, product * plane / 4, lane)) >>
                        product * plane * 2 % 8;
        quads[0] |= (word & mask) << shift;
        quads[1] |= (word >> plane & mask) << shift;
        plane_at += n_words * FRAGMENT_LANES * 4;
    }
    quads[0] <<= strip->shape->factor - 1;
    quads[1] <<= strip->shape->factor - 1;
}

/* The exact numbers that codes stand for, but for scales and minima. */
template <int STEPS>
__device__ __forceinline__ void load_operand(const StripCodes *strip, uint32_t product, uint32_t lane, uint32_t a[4]) {
    uint32_t quads[2];
    load_quads<STEPS>(strip, product, lane, quads);
    CodeOffsets offsets = code_offsets(strip->shape->bias);
    switch (code_form(strip->shape->kind, strip->shape->bits)) {
    case FORM_BYTES:
        return code_operand<FORM_BYTES>(quads, 0, offsets, a);
    case FORM_NIBBLES:
        return code_operand<FORM_NIBBLES>(quads, 0, offsets, a);
    case FORM_E4M3:
        return code_operand<FORM_E4M3>(quads, 0, offsets, a);
    case FORM_NF4:
        return code_operand<FORM_NF4>(quads, 0, offsets, a);
    }
}

/* Scales, or minima, for the four words of an operand. */
struct OperandSteps {
    uint32_t of[4];
};

/* By channel, of keys: four elements in a row, for all tokens. */
template <int STEPS>
__device__ __forceinline__ OperandSteps channel_steps(const uint8_t *part, uint32_t step, uint32_t lane) {
    uint2 four = *(const uint2 *)(part + fragment_key_dim(STEPS, step, lane % 4, 0) * 2);
    OperandSteps steps = {{four.x, four.x, four.y, four.y}};
    return steps;
}

/* Of two tokens 8 apart, a half each, from their index on. */
__device__ __forceinline__ uint32_t two_steps(const uint8_t *part, uint32_t index) {
    return *(const uint32_t *)(part + index * 2);
}

/* nf4's scales are codes themselves, here made FP16. */
__device__ __forceinline__ uint32_t two_nf4_steps(const uint8_t *part, uint32_t index) {
    const float not_a_number = f32_from_bits(0x7fc00000);
    uint32_t constants = *(const uint32_t *)part;
    uint32_t codes = *(const uint16_t *)(part + FRAGMENT_NF4_AT + index), first = codes & 0xff, second = codes >> 8;
    float minimum = half2_low(constants), step = half2_high(constants);
    return half2_from_f32(first == KV_NF4_SCALE_NAN ? not_a_number : fmaf(step, (float)first, minimum),
                          second == KV_NF4_SCALE_NAN ? not_a_number : fmaf(step, (float)second, minimum));
}

/* By token; `half` is which 16 tokens of the strip. */
__device__ __forceinline__ OperandSteps token_steps(const StripCodes *strip, const uint8_t *part, KvSide side,
                                                    uint32_t half, uint32_t step, uint32_t lane) {
    const FragmentShape *shape = strip->shape;
    bool is_nf4 = shape->kind == KV_CODE_NF4;
    uint32_t block = shape->n_blocks == 1 ? 0 : step * 16 / shape->block;
    uint32_t index = block * shape->n_tokens + strip->before + 2 * half;
    if (side == KV_KEYS) { /* tokens g and 8 + g */
        uint32_t at = index + lane / 4 * 4, both = is_nf4 ? two_nf4_steps(part, at) : two_steps(part, at);
        uint32_t g = byte_permute(both, both, 0x1010), g8 = byte_permute(both, both, 0x3232);
        OperandSteps steps = {{g, g8, g, g8}};
        return steps;
    }
    uint32_t at = index + lane % 4 * 8; /* tokens 2 j and 8 more, then 2 j + 1 and 8 more */
    uint32_t first = is_nf4 ? two_nf4_steps(part, at) : two_steps(part, at);
    uint32_t second = is_nf4 ? two_nf4_steps(part, at + 4) : two_steps(part, at + 4);
    uint32_t low = byte_permute(first, second, 0x5410), high = byte_permute(first, second, 0x7632);
    OperandSteps steps = {{low, low, high, high}};
    return steps;
}

template <int STEPS>
__device__ __forceinline__ OperandSteps operand_steps(const StripCodes *strip, const uint8_t *part, KvSide side,
                                                      uint32_t half, uint32_t step, uint32_t lane) {
    return side == KV_KEYS && strip->shape->by_channel ? channel_steps<STEPS>(part, step, lane)
                                                       : token_steps(strip, part, side, half, step, lane);
}

template <int STEPS>
__device__ __forceinline__ void apply_steps(const StripCodes *strip, KvSide side, uint32_t half, uint32_t step,
                                            uint32_t lane, uint32_t a[4]) {
    OperandSteps scales = operand_steps<STEPS>(strip, strip->scales, side, half, step, lane);
    if (strip->shape->has_minima) {
        OperandSteps minima = operand_steps<STEPS>(strip, strip->minima, side, half, step, lane);
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = half2_fma(a[i], scales.of[i], minima.of[i]);
        return;
    }
    bool is_e4m3 = strip->shape->kind == KV_CODE_E4M3; /* codes are 2^-8 of what they stand for */
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = half2_mul(a[i], is_e4m3 ? half2_mul(scales.of[i], 0x5c005c00u) : scales.of[i]);
}

/* Strips from token `begin` on, a step of 16 tokens by each warp in turn. */
template <KvSide SIDE, int STEPS, int TOKENS>
__device__ __forceinline__ void load_codes(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                           uint32_t begin, uint32_t warp, uint32_t n_warps, uint32_t lane) {
    for (uint32_t first = 0; first < TOKENS; first += FRAGMENT_STRIP) {
        bool is_there = begin + first < section->n_tokens;
        StripCodes strip = strip_at(section, SIDE, is_there ? begin + first : begin);
#pragma unroll 2
        for (uint32_t product = warp; product < 2 * STEPS; product += n_warps) {
            uint32_t half = product / STEPS, step = product % STEPS, sixteen = first / 16 + half, a[4] = {0, 0, 0, 0};
            if (is_there) {
                load_operand<STEPS>(&strip, product, lane, a);
                apply_steps<STEPS>(&strip, SIDE, half, step, lane, a);
            }
            if (SIDE == KV_VALUES) {
                tile->values[sixteen][step][lane] = make_uint4(a[0], a[2], a[1], a[3]);
            } else {
                tile->keys[2 * sixteen][key_operand<STEPS>(step, lane)] = make_uint2(a[0], a[2]);
                tile->keys[2 * sixteen + 1][key_operand<STEPS>(step, lane)] = make_uint2(a[1], a[3]);
            }
        }
    }
}

/* Tokens from `begin` on, by all warps of a block; it is there for all of them behind a barrier. */
template <int STEPS, int TOKENS>
__device__ __forceinline__ void load_tile(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                          uint32_t begin) {
    const uint32_t warp = threadIdx.x / 32, n_warps = blockDim.x / 32, lane = threadIdx.x % 32;
    if (section->shape[KV_KEYS].kind == KV_CODE_HALF) {
        load_key_rows(tile, section, begin, warp, n_warps, lane);
        copy_commit();
    } else {
        load_codes<KV_KEYS>(tile, section, begin, warp, n_warps, lane);
    }
    if (section->shape[KV_VALUES].kind == KV_CODE_HALF)
        load_value_rows(tile, section, begin, warp, n_warps, lane);
    else
        load_codes<KV_VALUES>(tile, section, begin, warp, n_warps, lane);
    copy_wait<0>();
}

#endif
