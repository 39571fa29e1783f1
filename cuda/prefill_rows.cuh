/* 16 rows of a block, (query, query head) each, in a warp's registers: their scores with a tile's keys, the online
 * softmax in F32 (Milakov & Gimelshein 2018) in units of log2, and their sums of values; as FlashAttention-2 (Dao 2023)
 * has them. Of lane 4 g + j are rows g and 8 + g. */
#ifndef STOWKV_CUDA_PREFILL_ROWS_CUH
#define STOWKV_CUDA_PREFILL_ROWS_CUH

#include "cuda/attention.h"
#include "cuda/prefill_tile.cuh"
#include "cuda/query_head.cuh"

#define PREFILL_ROWS 16 /* of a warp */

/* Weights are 2^10 times too large, so that small ones keep their digits in FP16; their sum is so too. */
#define WEIGHT_EXPONENT 10
#define HALF_ONES       0x3c003c00u

/* ---- Queries */

/* How the queries of a section stand to its keys. */
enum PrefillForm { PREFILL_NONE, PREFILL_PLAIN, PREFILL_ROTATED, PREFILL_SHIFTED };

/* Queries as first operands, in FP16. A row is divided by a power of two no less than its norm, which scores are to be
 * multiplied with again. */
template <int STEPS> struct PrefillQuery {
    uint4 operands[STEPS][32];
    float units[PREFILL_ROWS];
};

/* 2^n above the norm; log2(e) / sqrt(head_dim) is in the row already */
__device__ __forceinline__ uint32_t exponent_above(float squares) {
    uint32_t exponent = (f32_bits(sqrtf(squares)) >> 23) + 1;
    return exponent < 2 ? 2 : exponent < 252 ? exponent : 252;
}

template <int STEPS>
__device__ __forceinline__ void store_row(PrefillQuery<STEPS> *query, uint32_t row, uint32_t lane,
                                          const HeadPart<STEPS> &part) {
    uint16_t *halves = reinterpret_cast<uint16_t *>(query->operands);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < part.n; i++)
        squares += part.x[i] * part.x[i];
    uint32_t exponent = exponent_above(warp_sum(squares));
    float shrink = f32_from_bits((254 - exponent) << 23);
    if (lane == 0)
        query->units[row] = f32_from_bits(exponent << 23);
#pragma unroll
    for (int i = 0; i < part.n; i++) {
        uint32_t dim = lane + 32 * i;
        FragmentPlace place = fragment_place_key(STEPS, row, dim); /* rows are to queries what tokens are to keys */
        uint32_t operand = place.quad / 2 * 32 + place.lane, word = place.quad % 2 + place.byte / 2 * 2;
        if (dim < 16 * STEPS)
            halves[operand * 8 + word * 2 + place.byte % 2] = f32_to_half(part.x[i] * shrink);
    }
}

/* The query of a row, and how it is to be turned; q is NULL for rows without a query, which are 0. */
struct PrefillSource {
    const float *q;              /* (head_dim) */
    const float *shift_rotation; /* (head_dim / 2, 2), or NULL */
    RopePairing pairing;
    bool rotated;
};

template <int STEPS>
__device__ __forceinline__ void prepare_row(PrefillQuery<STEPS> *query, uint32_t row, uint32_t lane,
                                            const PrefillSource &source) {
    const float unit = 1.44269504f / sqrtf(16.0f * STEPS); /* log2(e) */
    HeadPart<STEPS> part;
#pragma unroll
    for (int i = 0; i < part.n; i++) {
        uint32_t dim = lane + 32 * i;
        part.x[i] = 0;
        if (source.q != NULL && dim < 16 * STEPS)
            part.x[i] = unit * (source.shift_rotation == NULL
                                    ? source.q[dim]
                                    : turned_element<STEPS>(source.q, dim, source.pairing, source.shift_rotation));
    }
    if constexpr (is_power_of_two_steps(STEPS))
        if (source.rotated)
            rotate_head<STEPS>(&part, lane);
    store_row(query, row, lane, part);
}

/* The rows of a warp in the form of a section. */
template <int STEPS>
__device__ __forceinline__ void prepare_rows(PrefillQuery<STEPS> *query, const CudaAttention *a,
                                             const PrefillQueries *queries, PrefillForm form, uint32_t n_unshifted,
                                             uint32_t warp, uint32_t lane) {
    __syncwarp();
    for (uint32_t row = 0; row < PREFILL_ROWS; row++) {
        uint32_t index = warp * PREFILL_ROWS + row, of = index / queries->q_per_kv, head = index % queries->q_per_kv;
        PrefillSource source = {NULL, NULL, a->pairing, form == PREFILL_ROTATED};
        size_t token = queries->first + of;
        if (of < queries->n)
            source.q = a->q + (token * a->n_heads + queries->kv_head * queries->q_per_kv + head) * (16 * STEPS);
        if (form == PREFILL_SHIFTED && of < queries->n && of >= n_unshifted)
            source.shift_rotation = a->shift_rotation + token * (16 * STEPS);
        prepare_row(query, row, lane, source);
    }
    __syncwarp();
}

/* ---- Rows over tiles */

template <int STEPS> struct PrefillRows {
    float out[2 * STEPS][4]; /* products of a step, for its two quads: d[0], d[1] of row g, d[2], d[3] of row 8 + g */
    float sum[4];            /* of weights: d[0] of row g, d[2] of row 8 + g */
    float max[2];            /* in units of log2 */
};

/* Tokens of a tile that a row sees: those with (uint32_t)(token + start) < n. */
struct PrefillWindow {
    uint32_t start, n;
};

template <int STEPS> __device__ __forceinline__ void clear_rows(PrefillRows<STEPS> *rows) {
#pragma unroll
    for (int i = 0; i < 2 * STEPS; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            rows->out[i][e] = 0;
#pragma unroll
    for (int e = 0; e < 4; e++)
        rows->sum[e] = 0;
    rows->max[0] = rows->max[1] = -INFINITY;
}

template <int STEPS, int TOKENS>
__device__ __forceinline__ void multiply_keys(const PrefillTile<STEPS, TOKENS> *tile, const PrefillQuery<STEPS> *query,
                                              uint32_t lane, float scores[TOKENS / 8][4]) {
#pragma unroll
    for (int n = 0; n < TOKENS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            scores[n][e] = 0;
#pragma unroll
    for (int block = 0; block < STEPS / 2; block++) {
        uint4 a = query->operands[2 * block][lane], b = query->operands[2 * block + 1][lane];
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++) {
            uint4 k = *reinterpret_cast<const uint4 *>(&tile->keys[n][block * 64 + lane * 2]);
            mma_16x8x16(scores[n], a.x, a.y, a.z, a.w, k.x, k.y);
            mma_16x8x16(scores[n], b.x, b.y, b.z, b.w, k.z, k.w);
        }
    }
    if constexpr (STEPS % 2 == 1) {
        uint4 a = query->operands[STEPS - 1][lane];
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++) {
            uint2 k = tile->keys[n][(STEPS - 1) * 32 + lane];
            mma_16x8x16(scores[n], a.x, a.y, a.z, a.w, k.x, k.y);
        }
    }
}

/* Tokens that a row does not see get no weight, whatever their keys are. */
template <int N> __device__ __forceinline__ void mask_scores(float scores[N][4], const PrefillWindow *windows) {
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (windows[half].start + (uint32_t)(8 * n + e) >= windows[half].n)
                    scores[n][2 * half + e] = -INFINITY;
}

/* Scores become weights, and what is summed already is brought to the new maximum. A row that has seen nothing yet has
 * a maximum of minus infinity, and weights of 0. */
template <int STEPS, int N>
__device__ __forceinline__ void weigh_scores(PrefillRows<STEPS> *rows, float scores[N][4], const float units[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = -INFINITY;
#pragma unroll
        for (int n = 0; n < N; n++)
            largest = fmaxf(largest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
        largest = fmaxf(largest, warp_xor(largest, 1));
        largest = fmaxf(largest, warp_xor(largest, 2));
        float max = fmaxf(rows->max[half], largest * units[half]), base = max == -INFINITY ? 0 : max;
        float kept = exp2_fast(rows->max[half] - base);
        rows->max[half] = max;
        rows->sum[2 * half] *= kept;
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++) {
            rows->out[i][2 * half] *= kept;
            rows->out[i][2 * half + 1] *= kept;
        }
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                scores[n][2 * half + e] = exp2_fast(fmaf(scores[n][2 * half + e], units[half], WEIGHT_EXPONENT - base));
    }
}

/* The weights' sum is a product too, so that it is of the rounded weights. */
template <int STEPS, int TOKENS>
__device__ __forceinline__ void add_values(PrefillRows<STEPS> *rows, const PrefillTile<STEPS, TOKENS> *tile,
                                           uint32_t lane, float weights[TOKENS / 8][4]) {
#pragma unroll
    for (int i = 0; i < TOKENS / 16; i++) {
        const float *low = weights[2 * i], *high = weights[2 * i + 1];
        uint32_t a0 = half2_from_f32(low[0], low[1]), a1 = half2_from_f32(low[2], low[3]);
        uint32_t a2 = half2_from_f32(high[0], high[1]), a3 = half2_from_f32(high[2], high[3]);
        mma_16x8x16(rows->sum, a0, a1, a2, a3, HALF_ONES, HALF_ONES);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint4 v = tile->values[i][step][lane];
            mma_16x8x16(rows->out[2 * step], a0, a1, a2, a3, v.x, v.y);
            mma_16x8x16(rows->out[2 * step + 1], a0, a1, a2, a3, v.z, v.w);
        }
    }
}

/* `windows` is NULL where all rows see all tokens. */
template <int STEPS, int TOKENS>
__device__ __forceinline__ void attend_tile(PrefillRows<STEPS> *rows, const PrefillTile<STEPS, TOKENS> *tile,
                                            const PrefillQuery<STEPS> *query, bool is_masked,
                                            const PrefillWindow windows[2], uint32_t lane) {
    float scores[TOKENS / 8][4], units[2] = {query->units[lane / 4], query->units[8 + lane / 4]};
    multiply_keys(tile, query, lane, scores);
    if (is_masked)
        mask_scores<TOKENS / 8>(scores, windows);
    weigh_scores<STEPS, TOKENS / 8>(rows, scores, units);
    add_values(rows, tile, lane, scores);
}

/* ---- What comes out */

/* Element of d[0] of the products of a step for quad r; d[1] is that of the next column. */
template <int STEPS> __device__ __forceinline__ uint32_t out_dim(int step, int r, uint32_t j, int column) {
    return fragment_value_dim(STEPS, (uint32_t)step, 2 * j + (uint32_t)column, (uint32_t)r);
}

/* One butterfly between products whose elements differ by `half`, in registers: those of bit 0 are in the quads of a
 * step, bit 1 in the steps of a block, bit 2 in columns; from 32 on in blocks. */
template <int STEPS> __device__ __forceinline__ void rotate_registers(PrefillRows<STEPS> *rows) {
#pragma unroll
    for (int half = 1; half < 2 * STEPS; half *= 2)
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++)
            if ((i & half) == 0)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    float a = rows->out[i][e], b = rows->out[i + half][e];
                    rows->out[i][e] = a + b;
                    rows->out[i + half][e] = a - b;
                }
}

/* Sums of rotated values, rotated back: the orthonormal Walsh-Hadamard transform (kv_rotate). The other bits of an
 * element are in columns (bit 2) and lanes (bits 3 and 4). */
template <int STEPS> __device__ __forceinline__ void rotate_back(PrefillRows<STEPS> *rows, uint32_t lane) {
    const float norm = 1 / sqrtf(16.0f * STEPS);
    rotate_registers(rows);
#pragma unroll
    for (int i = 0; i < 2 * STEPS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float a = rows->out[i][2 * half] * norm, b = rows->out[i][2 * half + 1] * norm;
            float x[2] = {a + b, a - b};
#pragma unroll
            for (int e = 0; e < 2; e++) {
#pragma unroll
                for (int mask = 1; mask < 4; mask *= 2) {
                    float other = warp_xor(x[e], mask);
                    x[e] = lane & (uint32_t)mask ? other - x[e] : x[e] + other;
                }
                rows->out[i][2 * half + e] = x[e];
            }
        }
}

/* Row g, or 8 + g, to (head_dim). Eight elements of a block are in a row, four of half a block. */
template <int STEPS>
__device__ __forceinline__ void store_out(const PrefillRows<STEPS> *rows, int half, uint32_t lane, float *out) {
    float shrink = 1 / rows->sum[2 * half];
#pragma unroll
    for (int step = 0; step + 1 < STEPS; step += 2)
#pragma unroll
        for (int column = 0; column < 2; column++) {
            int e = 2 * half + column;
            float4 four = {rows->out[2 * step][e] * shrink, rows->out[2 * step + 1][e] * shrink,
                           rows->out[2 * step + 2][e] * shrink, rows->out[2 * step + 3][e] * shrink};
            *reinterpret_cast<float4 *>(out + out_dim<STEPS>(step, 0, lane % 4, column)) = four;
        }
    if constexpr (STEPS % 2 == 1) {
        const float *first = rows->out[2 * STEPS - 2], *second = rows->out[2 * STEPS - 1];
        float4 four = {first[2 * half] * shrink, second[2 * half] * shrink, first[2 * half + 1] * shrink,
                       second[2 * half + 1] * shrink};
        *reinterpret_cast<float4 *>(out + out_dim<STEPS>(STEPS - 1, 0, lane % 4, 0)) = four;
    }
}

#endif
