/* The flash stream of a warp: an online softmax over units of 32 tokens (Milakov & Gimelshein 2018), with products of
 * mma_16x8x16() whose rows are tokens for scores and elements for sums, and whose columns are query heads. Nothing is
 * shared between warps, and there is no barrier.
 *
 * A value's scale is applied to its weight, which must then be FP16. So that such products are neither lost to
 * subnormals nor overflow, however small or large scales are, the exponent that all weights of a head are relative to
 * is the largest of score + log2(scale) so far, not of score: the product of the largest is near 1. */
#ifndef STOWKV_CUDA_FUSED_STREAM_CUH
#define STOWKV_CUDA_FUSED_STREAM_CUH

#include "cuda/fused_codes.cuh"
#include "cuda/fused_query.cuh"
#include "cuda/fused_rows.cuh"
#include "cuda/fused_scales.cuh"
#include "cuda/fused_units.cuh"

/* Of STEPS * 16 elements and TILES * 8 heads; lane 4 g + j has heads 8 tile + 2 j and the next. */
template <int STEPS, int TILES> struct Stream {
    static constexpr int blocks = (STEPS + 1) / 2;
    float sum[STEPS][TILES][4];     /* elements fragment_value_dim(step, g, 0) of both heads, and (step, g, 1) */
    float minima[blocks][TILES][2]; /* weights times minima, of the lane's tokens alone */
    float exponent[TILES][2];
    float weight[TILES][2]; /* sum, of the lane's tokens alone */
    bool rotated;           /* what is summed so far are rotated values */
};

/* Scores of a unit, then weights: tile, head tile, and (token g, both heads), (token 8 + g, both heads). */
template <int TILES> struct Weights { float of[2][TILES][4]; };

/* The lanes' part of a warp's shared memory. */
template <int STEPS> struct WarpScales { StripScales<STEPS> side[KV_SIDES]; };

/* Where a unit's side is. */
struct UnitSide {
    const FragmentShape *shape;
    const uint8_t *record, *codes; /* of the strip; or, for rows, the first row */
    uint32_t strip;                /* of the record */
    uint32_t block_mask;           /* a scale is for blocks of 32 that differ in these bits */
    int block_shift;
};

__device__ __forceinline__ UnitSide unit_side(const FusedSide *side, uint32_t unit) {
    UnitSide at;
    const FragmentShape *shape = &side->shape;
    uint32_t per_record = shape->n_tokens / UNIT_TOKENS, record = unit / per_record;
    at.shape = shape;
    at.strip = unit % per_record;
    at.record = side->first + (size_t)record * shape->record_bytes;
    at.codes =
        at.record + at.strip * (shape->kind == KV_CODE_HALF ? shape->record_bytes / per_record : shape->strip_bytes);
    at.block_shift = shape->n_blocks == 1 ? 31 : shape->block > FRAGMENT_BLOCK ? 1 : 0;
    at.block_mask = (1u << at.block_shift) - 1;
    return at;
}

template <int STEPS, int TILES> __device__ __forceinline__ void begin_stream(Stream<STEPS, TILES> *stream) {
    stream->rotated = false;
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            stream->sum[step][n][0] = stream->sum[step][n][1] = stream->sum[step][n][2] = stream->sum[step][n][3] = 0;
#pragma unroll
        for (int block = 0; block < stream->blocks; block++)
            stream->minima[block][n][0] = stream->minima[block][n][1] = 0;
        stream->exponent[n][0] = stream->exponent[n][1] = -INFINITY;
        stream->weight[n][0] = stream->weight[n][1] = 0;
    }
}

/* ---- Scores */

/* What all tokens of the record have in common, the product of the query with minima by channel: all rows are these. */
template <int STEPS, int TILES>
__device__ __forceinline__ void score_minima(Weights<TILES> *scores, const StripScales<STEPS> *scales,
                                             const uint4 (*fragments)[(STEPS + 1) / 2][32], uint32_t lane) {
    float sums[TILES][4] = {};
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        /* the lane's elements of a step are four in a row */
        uint2 minima = reinterpret_cast<const uint2 *>(scales->minima)[fragment_key_dim(STEPS, step, lane % 4, 0) / 4];
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            uint4 q = fragments[n][step / 2][lane];
            mma_16x8x16(sums[n], minima.x, minima.x, minima.y, minima.y, step % 2 == 0 ? q.x : q.z,
                        step % 2 == 0 ? q.y : q.w);
        }
    }
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            scores->of[0][n][i] = scores->of[1][n][i] = sums[n][i];
}

/* Operands of a block's products, with scales by channel. */
template <int STEPS>
__device__ __forceinline__ uint4 scaled_query(uint4 q, const StripScales<STEPS> *scales, int block, uint32_t lane) {
    const uint2 *fours = reinterpret_cast<const uint2 *>(scales->scales);
    uint2 first = fours[fragment_key_dim(STEPS, 2 * block, lane % 4, 0) / 4];
    q.x = half2_mul(q.x, first.x);
    q.y = half2_mul(q.y, first.y);
    if (2 * block + 1 < STEPS) {
        uint2 second = fours[fragment_key_dim(STEPS, 2 * block + 1, lane % 4, 0) / 4];
        q.z = half2_mul(q.z, second.x);
        q.w = half2_mul(q.w, second.y);
    }
    return q;
}

/* The block's products with scales by token: adds scale * part + minimum * (sum of the query's elements). */
template <int STEPS, int TILES, int N>
__device__ __forceinline__ void fold_block(Weights<TILES> *scores, float (*parts)[TILES][4], int first_tile,
                                           const float scale[4], const float minimum[4], bool has_minima,
                                           const float *query_sums, uint32_t lane) { // (8 TILES)
#pragma unroll
    for (int t = 0; t < N; t++)
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float *score = &scores->of[first_tile + t][n][i];
                *score += scale[2 * (first_tile + t) + i / 2] * parts[t][n][i];
                if (has_minima)
                    *score += minimum[2 * (first_tile + t) + i / 2] * query_sums[8 * n + 2 * (lane % 4) + i % 2];
                parts[t][n][i] = 0;
            }
}

/* Adds a piece's products to `scores`. */
template <int STEPS, int TILES, CodeForm FORM>
__device__ __forceinline__ void score_piece(Weights<TILES> *scores, const UnitSide &side, const uint32_t *words,
                                            int piece, const StripScales<STEPS> *scales,
                                            const FusedQuery<STEPS, 8 * TILES> *query, QueryVariant variant,
                                            uint32_t lane) {
    constexpr int n_tiles = Piece<STEPS>::code_tiles;
    const CodeOffsets offsets = code_offsets(side.shape->bias);
    const bool by_channel = side.shape->by_channel, has_minima = side.shape->has_minima;
    float parts[n_tiles][TILES][4] = {}, scale[4] = {}, minimum[4] = {};
#pragma unroll
    for (int block = 0; block < Piece<STEPS>::blocks; block++) {
        uint4 q[TILES];
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            q[n] = query->fragments[variant][n][block][lane];
            if (by_channel)
                q[n] = scaled_query<STEPS>(q[n], scales, block, lane);
        }
        if (!by_channel && (block & side.block_mask) == 0) {
            token_scales<STEPS>(scales, side.shape, block >> side.block_shift, lane / 4, 1, scale);
            if (has_minima)
                token_halves(scales->minima, block >> side.block_shift, lane / 4, minimum);
        }
#pragma unroll
        for (int t = 0; t < n_tiles; t++)
#pragma unroll
            for (int step = 2 * block; step < STEPS && step < 2 * block + 2; step++) {
                uint32_t a[4];
                code_operand<FORM>(words, t * STEPS + step, offsets, a);
#pragma unroll
                for (int n = 0; n < TILES; n++)
                    mma_16x8x16(parts[t][n], a[0], a[1], a[2], a[3], step % 2 == 0 ? q[n].x : q[n].z,
                                step % 2 == 0 ? q[n].y : q[n].w);
            }
        if (!by_channel)
            fold_block<STEPS, TILES, n_tiles>(scores, parts, piece * n_tiles, scale, minimum, has_minima,
                                              query->sums[variant][block], lane);
    }
#pragma unroll
    for (int t = 0; t < n_tiles; t++)
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                scores->of[piece * n_tiles + t][n][i] += parts[t][n][i]; /* by token: 0 by now */
}

/* The scores of encoded keys, of which the first piece has been loaded. */
template <int STEPS, int TILES>
__device__ __forceinline__ void score_codes(Weights<TILES> *scores, const UnitSide &side, uint32_t *words,
                                            const StripScales<STEPS> *scales, const FusedQuery<STEPS, 8 * TILES> *query,
                                            QueryVariant variant, uint32_t lane) {
    if (side.shape->by_channel && side.shape->has_minima)
        score_minima<STEPS, TILES>(scores, scales, query->fragments[variant], lane);
#pragma unroll
    for (int piece = 0; piece < Piece<STEPS>::of_codes; piece++) {
        if (piece > 0)
            load_codes<STEPS>(side.codes, side.shape->bits, piece, lane, words);
        expand_codes<STEPS>(words, side.shape->bits, side.shape->factor);
        switch (code_form(side.shape->kind, side.shape->bits)) {
        case FORM_BYTES:
            score_piece<STEPS, TILES, FORM_BYTES>(scores, side, words, piece, scales, query, variant, lane);
            break;
        case FORM_NIBBLES:
            score_piece<STEPS, TILES, FORM_NIBBLES>(scores, side, words, piece, scales, query, variant, lane);
            break;
        case FORM_E4M3:
            score_piece<STEPS, TILES, FORM_E4M3>(scores, side, words, piece, scales, query, variant, lane);
            break;
        case FORM_NF4:
            score_piece<STEPS, TILES, FORM_NF4>(scores, side, words, piece, scales, query, variant, lane);
            break;
        }
    }
}

/* The scores of FP16 keys, of which the first piece has been loaded. */
template <int STEPS, int TILES>
__device__ __forceinline__ void score_rows(Weights<TILES> *scores, const uint8_t *rows, uint32_t n_tokens,
                                           uint32_t *words, const uint4 (*fragments)[(STEPS + 1) / 2][32],
                                           uint32_t lane) {
    constexpr int halves = Piece<STEPS>::of_codes;
#pragma unroll(STEPS > 8 ? 1 : 2)
    for (int tile = 0; tile < 2; tile++) {
        float sums[TILES][4] = {};
#pragma unroll
        for (int half = 0; half < halves; half++) {
            if (tile + half > 0)
                load_key_rows<STEPS>(rows, tile * halves + half, n_tokens, lane, words);
#pragma unroll
            for (int i = 0; i < row_steps<STEPS>(); i++) {
                uint32_t a[4];
                key_row_operand<STEPS>(words, i, a);
                int step = half * row_steps<STEPS>() + i;
#pragma unroll
                for (int n = 0; n < TILES; n++) {
                    uint4 q = fragments[n][step / 2][lane];
                    mma_16x8x16(sums[n], a[0], a[1], a[2], a[3], step % 2 == 0 ? q.x : q.z, step % 2 == 0 ? q.y : q.w);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scores->of[0][n][i] = tile == 0 ? sums[n][i] : scores->of[0][n][i];
                scores->of[1][n][i] = tile == 0 ? scores->of[1][n][i] : sums[n][i];
            }
    }
}

/* In units of log2; tokens from n_tokens on are not there. */
template <int TILES>
__device__ __forceinline__ void finish_scores(Weights<TILES> *scores, const float *units, // (8 TILES)
                                              float code_unit, uint32_t n_tokens, uint32_t lane) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float unit = units[8 * n + 2 * (lane % 4) + i % 2] * code_unit;
            scores->of[0][n][i] *= unit;
            scores->of[1][n][i] *= unit;
        }
    if (n_tokens >= UNIT_TOKENS)
        return;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (16 * t + i / 2 * 8 + lane / 4 >= n_tokens)
                    scores->of[t][n][i] = -INFINITY;
}

/* ---- Weights */

/* An exponent of the largest scale of the tokens g, 8 + g, 16 + g, 24 + g: |scale| < 2^it. */
template <int STEPS>
__device__ __forceinline__ void scale_exponents(const UnitSide &side, const StripScales<STEPS> *scales, uint32_t lane,
                                                float out[4]) {
    float largest[4] = {};
    for (uint32_t block = 0; block < side.shape->n_blocks; block++) {
        float scale[4];
        token_scales<STEPS>(scales, side.shape, block, lane / 4, code_unit(side.shape->kind), scale);
#pragma unroll
        for (int i = 0; i < 4; i++)
            largest[i] = fmaxf(largest[i], fabsf(scale[i]));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t exponent = f32_bits(largest[i]) >> 23;
        exponent = exponent > 101 ? exponent : 101;                             /* no scale but 0 is below 2^-25 */
        out[i] = f32_from_bits(0x4b000000u + exponent) - (8388608.0f + 126.0f); /* 2^23 + exponent */
    }
}

/* Scores become weights, and what was summed before becomes relative to the new exponent. */
template <int STEPS, int TILES>
__device__ __forceinline__ void weigh(Stream<STEPS, TILES> *stream, Weights<TILES> *weights, const float exponents[4]) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int head = 0; head < 2; head++) {
            float largest = -INFINITY;
#pragma unroll
            for (int i = 0; i < 4; i++) // tokens
                largest = fmaxf(largest, weights->of[i / 2][n][i % 2 * 2 + head] + exponents[i]);
#pragma unroll
            for (int mask = 4; mask < 32; mask *= 2)
                largest = fmaxf(largest, warp_xor(largest, mask));
            float exponent = fmaxf(stream->exponent[n][head], largest);
            float finite = exponent == -INFINITY ? 0 : exponent; /* no difference of infinities */
            float shrink = exp2_fast(stream->exponent[n][head] - finite), weight = stream->weight[n][head] * shrink;
            stream->exponent[n][head] = exponent;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                stream->sum[step][n][head] *= shrink;
                stream->sum[step][n][head + 2] *= shrink;
            }
#pragma unroll
            for (int block = 0; block < stream->blocks; block++)
                stream->minima[block][n][head] *= shrink;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float *score = &weights->of[i / 2][n][i % 2 * 2 + head];
                *score = exp2_fast(*score - finite);
                weight += *score;
            }
            stream->weight[n][head] = weight;
        }
}

/* Weights of a tile and a head tile, times scales of its tokens g and 8 + g, as second operand: rows are tokens. */
__device__ __forceinline__ void weight_operand(const float of[4], float first, float second, uint32_t b[2]) {
    b[0] = transpose_8x8(half2_from_f32(of[0] * first, of[1] * first));
    b[1] = transpose_8x8(half2_from_f32(of[2] * second, of[3] * second));
}

/* ---- Sums */

/* Elements of arrays in registers, of a tile that a loop counts. */
__device__ __forceinline__ float of_tile(const float tokens[4], int tile, int r) {
    return tile == 0 ? tokens[r] : tokens[2 + r];
}

template <int TILES> __device__ __forceinline__ float weight_of(const Weights<TILES> &weights, int tile, int n, int i) {
    return tile == 0 ? weights.of[0][n][i] : weights.of[1][n][i];
}

template <int TILES>
__device__ __forceinline__ void tile_operand(const Weights<TILES> &weights, int tile, int n, const float scale[4],
                                             uint32_t b[2]) {
    float of[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        of[i] = weight_of(weights, tile, n, i);
    weight_operand(of, of_tile(scale, tile, 0), of_tile(scale, tile, 1), b);
}

template <int STEPS, int TILES, CodeForm FORM>
__device__ __forceinline__ void add_piece(Stream<STEPS, TILES> *stream, const Weights<TILES> &weights,
                                          const UnitSide &side, const uint32_t *words, int piece,
                                          const StripScales<STEPS> *scales, uint32_t lane) {
    constexpr int n_tiles = Piece<STEPS>::code_tiles;
    const CodeOffsets offsets = code_offsets(side.shape->bias);
    const bool has_minima = side.shape->has_minima;
    const int first_tile = piece * n_tiles;
    uint32_t b[n_tiles][TILES][2] = {};
    float minimum[4] = {};
#pragma unroll
    for (int block = 0; block < Piece<STEPS>::blocks; block++) {
        if ((block & side.block_mask) == 0) {
            float scale[4];
            token_scales<STEPS>(scales, side.shape, block >> side.block_shift, lane / 4, code_unit(side.shape->kind),
                                scale);
#pragma unroll
            for (int t = 0; t < n_tiles; t++)
#pragma unroll
                for (int n = 0; n < TILES; n++)
                    tile_operand(weights, first_tile + t, n, scale, b[t][n]);
            if (has_minima)
                token_halves(scales->minima, block >> side.block_shift, lane / 4, minimum);
        }
        if (has_minima)
#pragma unroll
            for (int t = 0; t < n_tiles; t++)
#pragma unroll
                for (int n = 0; n < TILES; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        stream->minima[block][n][i % 2] +=
                            weight_of(weights, first_tile + t, n, i) * of_tile(minimum, first_tile + t, i / 2);
#pragma unroll
        for (int step = 2 * block; step < STEPS && step < 2 * block + 2; step++)
#pragma unroll
            for (int t = 0; t < n_tiles; t++) {
                uint32_t a[4];
                code_operand<FORM>(words, t * STEPS + step, offsets, a);
#pragma unroll
                for (int n = 0; n < TILES; n++)
                    mma_16x8x16(stream->sum[step][n], a[0], a[1], a[2], a[3], b[t][n][0], b[t][n][1]);
            }
    }
}

/* Adds encoded values, of which the first piece has been loaded. */
template <int STEPS, int TILES>
__device__ __forceinline__ void add_codes(Stream<STEPS, TILES> *stream, const Weights<TILES> &weights,
                                          const UnitSide &side, uint32_t *words, const StripScales<STEPS> *scales,
                                          uint32_t lane) {
#pragma unroll 1 /* there are no registers for the loads of all pieces */
    for (int piece = 0; piece < Piece<STEPS>::of_codes; piece++) {
        if (piece > 0)
            load_codes<STEPS>(side.codes, side.shape->bits, piece, lane, words);
        expand_codes<STEPS>(words, side.shape->bits, side.shape->factor);
        switch (code_form(side.shape->kind, side.shape->bits)) {
        case FORM_BYTES:
            add_piece<STEPS, TILES, FORM_BYTES>(stream, weights, side, words, piece, scales, lane);
            break;
        case FORM_NIBBLES:
            add_piece<STEPS, TILES, FORM_NIBBLES>(stream, weights, side, words, piece, scales, lane);
            break;
        case FORM_E4M3:
            add_piece<STEPS, TILES, FORM_E4M3>(stream, weights, side, words, piece, scales, lane);
            break;
        case FORM_NF4:
            add_piece<STEPS, TILES, FORM_NF4>(stream, weights, side, words, piece, scales, lane);
            break;
        }
    }
}

/* Adds FP16 values, of which the first piece has been loaded. */
template <int STEPS, int TILES>
__device__ __forceinline__ void add_rows(Stream<STEPS, TILES> *stream, const Weights<TILES> &weights,
                                         const uint8_t *rows, uint32_t n_tokens, uint32_t *words, uint32_t lane) {
    constexpr int halves = Piece<STEPS>::of_codes;
#pragma unroll(STEPS > 8 ? 1 : 2) /* there are no registers for the loads of all pieces */
    for (int tile = 0; tile < 2; tile++) {
        const float ones[4] = {1, 1, 1, 1};
        uint32_t b[TILES][2];
#pragma unroll
        for (int n = 0; n < TILES; n++)
            tile_operand(weights, tile, n, ones, b[n]);
#pragma unroll
        for (int half = 0; half < halves; half++) {
            if (tile + half > 0)
                load_value_rows<STEPS>(rows, tile * halves + half, n_tokens, lane, words);
#pragma unroll
            for (int i = 0; i < row_steps<STEPS>(); i++) {
                uint32_t a[4];
                value_row_operand<STEPS>(words, i, a);
#pragma unroll
                for (int n = 0; n < TILES; n++)
                    mma_16x8x16(stream->sum[half * row_steps<STEPS>() + i][n], a[0], a[1], a[2], a[3], b[n][0],
                                b[n][1]);
            }
        }
    }
}

/* ---- A unit */

template <int STEPS>
__device__ __forceinline__ void load_first_piece(const UnitSide &side, KvSide which, uint32_t n_tokens, uint32_t lane,
                                                 uint32_t words[Piece<STEPS>::words]) {
    if (side.shape->kind != KV_CODE_HALF)
        load_codes<STEPS>(side.codes, side.shape->bits, 0, lane, words);
    else if (which == KV_KEYS)
        load_key_rows<STEPS>(side.codes, 0, n_tokens, lane, words);
    else
        load_value_rows<STEPS>(side.codes, 0, n_tokens, lane, words);
}

template <int STEPS, int TILES>
__device__ __forceinline__ void attend_unit(Stream<STEPS, TILES> *stream, const FusedRun *run, uint32_t unit,
                                            const FusedQuery<STEPS, 8 * TILES> *query, WarpScales<STEPS> *scales,
                                            uint32_t lane) {
    const UnitSide keys = unit_side(&run->side[KV_KEYS], unit), values = unit_side(&run->side[KV_VALUES], unit);
    const bool key_rows = keys.shape->kind == KV_CODE_HALF, value_rows = values.shape->kind == KV_CODE_HALF;
    const uint32_t left = run->n_tokens - unit * UNIT_TOKENS, n_tokens = left < UNIT_TOKENS ? left : UNIT_TOKENS;
    const QueryVariant variant = run->shifted ? QUERY_SHIFTED : keys.shape->rotated ? QUERY_ROTATED : QUERY_PLAIN;
    /* Values are under way while keys are multiplied, where registers suffice. */
    constexpr bool values_early = STEPS * TILES < 16;
    uint32_t key_words[Piece<STEPS>::words], value_words[Piece<STEPS>::words];
    __syncwarp(); /* the scales of the unit before are done with */
    if (!key_rows)
        copy_scales<STEPS>(&scales->side[KV_KEYS], keys.shape, keys.record, keys.strip, lane);
    if (!value_rows)
        copy_scales<STEPS>(&scales->side[KV_VALUES], values.shape, values.record, values.strip, lane);
    copy_commit();
    load_first_piece<STEPS>(keys, KV_KEYS, n_tokens, lane, key_words);
    if constexpr (values_early)
        load_first_piece<STEPS>(values, KV_VALUES, n_tokens, lane, value_words);
    copy_wait<0>();
    __syncwarp();

    Weights<TILES> weights = {};
    if (key_rows)
        score_rows<STEPS, TILES>(&weights, keys.codes, n_tokens, key_words, query->fragments[variant], lane);
    else
        score_codes<STEPS, TILES>(&weights, keys, key_words, &scales->side[KV_KEYS], query, variant, lane);
    if constexpr (!values_early)
        load_first_piece<STEPS>(values, KV_VALUES, n_tokens, lane, value_words);
    finish_scores<TILES>(&weights, query->units[variant], code_unit(keys.shape->kind), n_tokens, lane);
    float exponents[4] = {};
    if (!value_rows)
        scale_exponents<STEPS>(values, &scales->side[KV_VALUES], lane, exponents);
    weigh(stream, &weights, exponents);
    if (value_rows)
        add_rows<STEPS, TILES>(stream, weights, values.codes, n_tokens, value_words, lane);
    else
        add_codes<STEPS, TILES>(stream, weights, values, value_words, &scales->side[KV_VALUES], lane);
}

/* ---- Between units */

/* Adds the minima's part to the sums of their blocks' elements. */
template <int STEPS, int TILES> __device__ __forceinline__ void add_minima(Stream<STEPS, TILES> *stream) {
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int head = 0; head < 2; head++)
#pragma unroll
            for (int block = 0; block < stream->blocks; block++) {
                float sum = stream->minima[block][n][head];
#pragma unroll
                for (int mask = 4; mask < 32; mask *= 2)
                    sum += warp_xor(sum, mask);
                stream->minima[block][n][head] = 0;
#pragma unroll
                for (int step = 2 * block; step < STEPS && step < 2 * block + 2; step++) {
                    stream->sum[step][n][head] += sum;
                    stream->sum[step][n][head + 2] += sum;
                }
            }
}

__device__ __forceinline__ void butterfly(float *a, float *b) {
    float sum = *a + *b;
    *b = *a - *b;
    *a = sum;
}

/* The orthonormal Walsh-Hadamard transform of all sums, so that they are of rotated values where they were of plain
 * ones, or the reverse. Bits of an element's number, from the lowest: its place in `sum` / 2, step % 2, g, step / 2. */
template <int STEPS, int TILES>
__device__ __forceinline__ void rotate_sums(Stream<STEPS, TILES> *stream, uint32_t lane) {
    const float shrink = 1 / sqrtf(16.0f * STEPS);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            float *sum = stream->sum[step][n];
            butterfly(&sum[0], &sum[2]);
            butterfly(&sum[1], &sum[3]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x = sum[i] * shrink;
#pragma unroll
                for (int mask = 4; mask < 32; mask *= 2) {
                    float other = warp_xor(x, mask);
                    x = lane & (uint32_t)mask ? other - x : x + other;
                }
                sum[i] = x;
            }
        }
#pragma unroll
        for (int half = 1; half < STEPS; half *= 2)
#pragma unroll
            for (int step = 0; step < STEPS; step++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if ((step & half) == 0)
                        butterfly(&stream->sum[step][n][i], &stream->sum[step + half][n][i]);
    }
}

template <int STEPS, int TILES>
__device__ __forceinline__ void turn_stream(Stream<STEPS, TILES> *stream, bool rotated, uint32_t lane) {
    if constexpr (is_power_of_two_steps(STEPS)) {
        if (stream->rotated == rotated)
            return;
        add_minima(stream);
        rotate_sums(stream, lane);
        stream->rotated = rotated;
    }
}

#endif
