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
template <int WARPS, int STEPS, int TOKENS>
__device__ __forceinline__ void load_key_rows(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                              uint32_t begin, uint32_t warp, uint32_t lane) {
    constexpr int blocks = STEPS / 2;
    for (uint32_t i = warp; i < TOKENS / 8 * blocks; i += WARPS) {
        uint32_t eight = i / blocks, block = i % blocks, token = begin + eight * 8 + lane / 4;
        bool is_there = token < section->n_tokens;
        const uint8_t *row = row_at<STEPS>(section, KV_KEYS, is_there ? token : begin);
        copy_16_async(&tile->keys[eight][block * 64 + lane * 2], row + block * 64 + lane % 4 * 16, is_there);
    }
    if constexpr (STEPS % 2 == 1)
        for (uint32_t eight = warp; eight < TOKENS / 8; eight += WARPS) {
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

template <int WARPS, int STEPS, int TOKENS>
__device__ __forceinline__ void load_value_rows(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                                uint32_t begin, uint32_t warp, uint32_t lane) {
    constexpr int blocks = (STEPS + 1) / 2;
#pragma unroll 2
    for (uint32_t i = warp; i < TOKENS / 16 * blocks; i += WARPS) {
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
    bool is_pair = shape->n_tokens == 2 * FRAGMENT_STRIP; /* else a record is one strip */
    uint32_t strip = at.token / FRAGMENT_STRIP, in_record = is_pair ? strip % 2 : 0;
    const uint8_t *record = section->first[at.run][side] + (size_t)(is_pair ? strip / 2 : strip) * shape->record_bytes;
    StripCodes codes = {shape, record + in_record * shape->strip_bytes, record + shape->scales, record + shape->minima,
                        in_record * FRAGMENT_STRIP};
    return codes;
}

/* What a lane loads of a step of 16 tokens: its two quads as they are stored, and scales and minima for them. By
 * channel, of keys, there are four in a row; by token one for each, of two tokens 8 apart in a word: g and 8 + g of
 * keys; 2 j and 2 j + 8, then 2 j + 1 and 2 j + 9 of values. */
struct RawStep {
    uint32_t words[3]; /* of up to three planes; of 8 bits two words */
    uint32_t scales[2], minima[2];
};

template <int STEPS>
__device__ __forceinline__ void load_words(const StripCodes *strip, uint32_t product, uint32_t lane,
                                           uint32_t words[3]) {
    const uint32_t bits = (uint32_t)strip->shape->bits;
    const uint8_t *plane_at = strip->codes;
    if (bits == 8) {
        uint2 two = *(const uint2 *)(plane_at + fragment_word_at(4 * STEPS, 2 * product, lane));
        words[0] = two.x;
        words[1] = two.y;
        return;
    }
    uint32_t shift = 0;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        if (shift >= bits)
            break;
        uint32_t plane = fragment_plane(bits, shift), n_words = fragment_words(STEPS, plane);
        words[i] = *(const uint32_t *)(plane_at + fragment_word_at(n_words, product * plane / 4, lane));
        plane_at += n_words * FRAGMENT_LANES * 4;
        shift += plane;
    }
}

template <KvSide SIDE>
__device__ __forceinline__ void load_steps(const StripCodes *strip, const uint8_t *part, uint32_t channel,
                                           uint32_t index, uint32_t steps[2]) {
    if (SIDE == KV_KEYS && strip->shape->by_channel) {
        uint2 four = *(const uint2 *)(part + channel * 2);
        steps[0] = four.x;
        steps[1] = four.y;
    } else if (strip->shape->kind == KV_CODE_NF4) { /* codes of 8 bits, behind constants */
        steps[0] = *(const uint16_t *)(part + FRAGMENT_NF4_AT + index);
        if (SIDE == KV_VALUES)
            steps[1] = *(const uint16_t *)(part + FRAGMENT_NF4_AT + index + 4);
    } else {
        steps[0] = *(const uint32_t *)(part + index * 2);
        if (SIDE == KV_VALUES)
            steps[1] = *(const uint32_t *)(part + (index + 4) * 2);
    }
}

/* `product` is the number of the step among those of the strip's two tiles of 16 tokens. */
template <KvSide SIDE, int STEPS>
__device__ __forceinline__ void load_raw(const StripCodes *strip, uint32_t block_shift, uint32_t product, uint32_t lane,
                                         RawStep *raw) {
    const FragmentShape *shape = strip->shape;
    uint32_t half = product / STEPS, step = product % STEPS;
    uint32_t channel = fragment_key_dim(STEPS, step, lane % 4, 0);
    uint32_t index = (step >> block_shift) * shape->n_tokens + strip->before + 2 * half +
                     (SIDE == KV_KEYS ? lane / 4 * 4 : lane % 4 * 8);
    load_words<STEPS>(strip, product, lane, raw->words);
    load_steps<SIDE>(strip, strip->scales, channel, index, raw->scales);
    if (shape->has_minima)
        load_steps<SIDE>(strip, strip->minima, channel, index, raw->minima);
}

/* The two quads, a byte for each code; of 4 bits they stay in one word. */
__device__ __forceinline__ void expand_words(const uint32_t words[3], uint32_t product, uint32_t bits, uint32_t factor,
                                             uint32_t quads[2]) {
    quads[0] = words[0];
    quads[1] = words[1];
    if (bits == 8 || bits == 4)
        return;
    quads[0] = quads[1] = 0;
    uint32_t shift = 0;
#pragma unroll
    for (int i = 0; i < 3; i++) {
        if (shift >= bits)
            break;
        uint32_t plane = fragment_plane(bits, shift), mask = ((1u << plane) - 1) * 0x01010101u;
        uint32_t word = words[i] >> product * plane * 2 % 8;
        quads[0] |= (word & mask) << shift;
        quads[1] |= (word >> plane & mask) << shift;
        shift += plane;
    }
    quads[0] <<= factor - 1;
    quads[1] <<= factor - 1;
}

/* The exact numbers that codes stand for, but for scales and minima; of E4M3 2^-8 of them. */
__device__ __forceinline__ void code_numbers(const FragmentShape *shape, const RawStep *raw, uint32_t product,
                                             uint32_t a[4]) {
    uint32_t quads[2];
    expand_words(raw->words, product, (uint32_t)shape->bits, (uint32_t)shape->factor, quads);
    CodeOffsets offsets = code_offsets(shape->bias);
    switch (code_form(shape->kind, shape->bits)) {
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

/* Two of nf4's scales, rounded to FP16. */
__device__ __forceinline__ uint32_t nf4_scales(uint32_t codes, uint32_t constants) {
    const float not_a_number = f32_from_bits(0x7fc00000);
    uint32_t first = codes & 0xff, second = codes >> 8;
    float minimum = half2_low(constants), step = half2_high(constants);
    return half2_from_f32(first == KV_NF4_SCALE_NAN ? not_a_number : fmaf(step, (float)first, minimum),
                          second == KV_NF4_SCALE_NAN ? not_a_number : fmaf(step, (float)second, minimum));
}

/* Scales, or minima, for the four words of an operand. */
template <KvSide SIDE>
__device__ __forceinline__ void deal_steps(const FragmentShape *shape, const uint32_t steps[2], uint32_t of[4]) {
    if (SIDE == KV_VALUES) {
        of[0] = of[1] = byte_permute(steps[0], steps[1], 0x5410);
        of[2] = of[3] = byte_permute(steps[0], steps[1], 0x7632);
    } else if (shape->by_channel) {
        of[0] = of[1] = steps[0];
        of[2] = of[3] = steps[1];
    } else {
        of[0] = of[2] = byte_permute(steps[0], steps[0], 0x1010);
        of[1] = of[3] = byte_permute(steps[0], steps[0], 0x3232);
    }
}

/* What is beyond FP16, such as the largest number of a group whose scale was rounded up, becomes the largest half: an
 * outlier does not become an infinity. */
__device__ __forceinline__ uint32_t saturated_pair(uint32_t pair) {
    if ((pair & 0x7fff) == 0x7c00)
        pair -= 1;
    return (pair & 0x7fff0000u) == 0x7c000000u ? pair - 0x10000u : pair;
}

template <KvSide SIDE>
__device__ __forceinline__ void decode_step(const StripCodes *strip, RawStep *raw, uint32_t product, uint32_t a[4]) {
    const FragmentShape *shape = strip->shape;
    uint32_t scales[4], minima[4];
    code_numbers(shape, raw, product, a);
    if (shape->kind == KV_CODE_NF4) {
        uint32_t constants = *(const uint32_t *)strip->scales;
        raw->scales[0] = nf4_scales(raw->scales[0], constants);
        if (SIDE == KV_VALUES)
            raw->scales[1] = nf4_scales(raw->scales[1], constants);
    }
    deal_steps<SIDE>(shape, raw->scales, scales);
    if (shape->has_minima)
        deal_steps<SIDE>(shape, raw->minima, minima);
    const uint32_t half_16 = 0x4c004c00u;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (shape->has_minima)
            a[i] = half2_fma(a[i], scales[i], minima[i]);
        else if (shape->kind == KV_CODE_E4M3)
            a[i] = half2_mul(half2_mul(a[i], half_16), half2_mul(scales[i], half_16));
        else
            a[i] = half2_mul(a[i], scales[i]);
    if (((scales[0] | scales[1] | scales[2] | scales[3]) & 0x40004000u) != 0) /* some are 2 or more */
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = saturated_pair(a[i]);
}

/* Strips from token `begin` on, their steps dealt out to the warps. A lane loads several before it decodes the first:
 * that is what keeps memory busy. */
template <KvSide SIDE, int WARPS, int STEPS, int TOKENS>
__device__ __forceinline__ void load_codes(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                           uint32_t begin, uint32_t warp, uint32_t lane) {
    constexpr uint32_t of_strip = 2 * STEPS, n = TOKENS / FRAGMENT_STRIP * of_strip;
    constexpr uint32_t at_once = STEPS > 8 || STEPS <= 4 ? 2 : 4; /* as registers allow */
    for (uint32_t first = warp; first < n; first += at_once * WARPS) {
        RawStep raw[at_once];
#pragma unroll
        for (uint32_t i = 0; i < at_once; i++) {
            uint32_t number = first + i * WARPS, token = begin + number / of_strip * FRAGMENT_STRIP;
            if (number >= n || token >= section->n_tokens)
                continue;
            StripCodes strip = strip_at(section, SIDE, token);
            load_raw<SIDE, STEPS>(&strip, section->block_shift[SIDE], number % of_strip, lane, &raw[i]);
        }
#pragma unroll
        for (uint32_t i = 0; i < at_once; i++) {
            uint32_t number = first + i * WARPS, token = begin + number / of_strip * FRAGMENT_STRIP;
            uint32_t product = number % of_strip, sixteen = number / STEPS, step = number % STEPS, a[4] = {0, 0, 0, 0};
            if (number >= n)
                break;
            if (token < section->n_tokens) {
                StripCodes strip = strip_at(section, SIDE, token);
                decode_step<SIDE>(&strip, &raw[i], product, a);
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
template <int WARPS, int STEPS, int TOKENS>
__device__ __forceinline__ void load_tile(PrefillTile<STEPS, TOKENS> *tile, const PrefillSection *section,
                                          uint32_t begin) {
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (section->shape[KV_KEYS].kind == KV_CODE_HALF) {
        load_key_rows<WARPS>(tile, section, begin, warp, lane);
        copy_commit();
    } else {
        load_codes<KV_KEYS, WARPS>(tile, section, begin, warp, lane);
    }
    if (section->shape[KV_VALUES].kind == KV_CODE_HALF)
        load_value_rows<WARPS>(tile, section, begin, warp, lane);
    else
        load_codes<KV_VALUES, WARPS>(tile, section, begin, warp, lane);
    copy_wait<0>();
}

#endif
