/* Queries times codes of keys, compiled once for each instruction set; see code_products.h. Tokens stand in lanes. */
#include "attention/coded_groups.h"

/* Some query heads, and the keys of a group. */
typedef struct CodedKeys {
    const CodedSide *side;
    CodedGroup group;
    const QuantizedBlock *queries; /* (n_heads, head_blocks), times the channels' scales if any */
    size_t head_blocks;
    const float *offsets; /* (n_heads) what the channels' minima add */
    float *scores;        /* (n_heads, group_tokens), heads `stride` apart */
    size_t stride;
} CodedKeys;

/* Adds the products of block `block` of 32 elements with the vectors of tokens from `token` on. */
INLINE void add_key_block(size_t n_heads, size_t bits, const CodedKeys *keys, size_t token, size_t block, Sums sums) {
    size_t first = block * PLANE_STEPS % QUANTIZED_STEPS, n = widest_plane(bits);
    const QuantizedBlock *queries = keys->queries + block * KV_WOVEN_BLOCK / QUANTIZED_BLOCK;
    const uint8_t *packs[VECS];
    for (size_t v = 0; v < VECS; v++) {
        size_t t = token + v * VEC_LANES;
        packs[v] = pack_at(bits, keys->side, &keys->group, t, block) + t % KV_WOVEN_TOKENS * 4;
        prefetch_pack(bits, keys->side, packs[v]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (size_t step = i; step < PLANE_STEPS; step += n) { /* steps that share a piece */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(packs[v], bits, step);
            add_step(n_heads, bits == 8, codes, queries, keys->head_blocks, first + step, sums);
        }
    }
}

/* total + (sum of products) * scale, and what minima by token add. `t`: index of scales and minima by token. */
INLINE Vec scaled_total(bool by_channel, const CodedKeys *keys, Vec total, VecInt sum, const QuantizedBlock *query,
                        int32_t query_sum, size_t t) {
    Vec scale = vec_set1(query->scale);
    if (!by_channel)
        scale = vec_mul(scale, vec_load_half(keys->group.scales + t));
    total = vec_fma(vec_int_to_float(sum), scale, total);
    if (!by_channel && keys->side->woven.has_minima)
        total = vec_fma(vec_load_half(keys->group.minima + t), vec_set1(query->scale * (float)query_sum), total);
    return total;
}

/* The scores of VECS vectors of tokens from `token` on. By channel two blocks share a scale, the quantized query's. */
INLINE void score_vectors(size_t n_heads, size_t bits, bool by_channel, const CodedKeys *keys, size_t token) {
    const CodedSide *side = keys->side;
    size_t n_blocks = side->head_dim / KV_WOVEN_BLOCK;
    Vec totals[CODE_HEADS][VECS];
    Sums sums;
    for (size_t h = 0; h < n_heads; h++)
        for (size_t v = 0; v < VECS; v++)
            totals[h][v] = vec_set1(by_channel ? keys->offsets[h] : 0.0f);
    for (size_t block = 0, run; block < n_blocks; block += run) {
        const QuantizedBlock *query = keys->queries + block / 2;
        run = by_channel && n_blocks - block >= 2 ? 2 : 1;
        clear_sums(n_heads, sums);
        for (size_t b = block; b < block + run; b++)
            add_key_block(n_heads, bits, keys, token, b, sums);
        for (size_t h = 0; h < n_heads; h++, query += keys->head_blocks) {
            int32_t sum = by_channel ? query->sums[0] : query->sums[block % 2];
            for (size_t v = 0; v < VECS; v++)
                totals[h][v] = scaled_total(by_channel, keys, totals[h][v], biased_total(side, sums[h][v], sum), query,
                                            sum, block * side->group_tokens + token + v * VEC_LANES);
        }
    }
    for (size_t h = 0; h < n_heads; h++)
        for (size_t v = 0; v < VECS; v++)
            vec_store(keys->scores + h * keys->stride + token + v * VEC_LANES, totals[h][v]);
}

/* The scores of tokens [first, end) and of their neighbours in the same vectors. */
INLINE void score_group(size_t n_heads, size_t bits, bool by_channel, const CodedKeys *keys, size_t first, size_t end) {
    const size_t step = VECS * VEC_LANES; /* groups are whole steps */
    for (size_t token = first / step * step; token < end; token += step)
        score_vectors(n_heads, bits, by_channel, keys, token);
}

static void score_heads(size_t n_heads, const CodedKeys *keys, size_t first, size_t end) {
#define SCORE_GROUP(bits, by_channel)                                                                                  \
    if (KV_HAS_KEYS(bits, by_channel))                                                                                 \
    WITH_CODE_HEADS(n_heads, score_group, bits, by_channel, keys, first, end)
#define SCORE_WIDTH(bits)                                                                                              \
    case bits:                                                                                                         \
        if (keys->side->woven.by_channel) {                                                                            \
            SCORE_GROUP(bits, true);                                                                                   \
        } else {                                                                                                       \
            SCORE_GROUP(bits, false);                                                                                  \
        }                                                                                                              \
        break;
    switch (keys->side->woven.bits) { KV_WIDTHS(SCORE_WIDTH) }
}

/* Queries times the channels' scales, quantized, and what the channels' minima add to a score. */
static void scale_queries(const CodedSide *side, const CodedGroup *group, const float *const *heads, size_t n_heads,
                          QuantizedBlock *queries, float *offsets) {
    quantize_heads(heads, n_heads, group->scales, side->head_dim, 1, queries, blocks_of(side->head_dim));
    for (size_t h = 0; h < n_heads; h++)
        offsets[h] = side->woven.has_minima ? dot(heads[h], group->minima, side->head_dim) : 0.0f;
}

void SIMD_NAME(score_codes)(QuantizedBlock *queries, const TilePiece *piece, const float *q, size_t n_heads,
                            float (*scores)[SCORE_STRIDE]) {
    CodedSide side = side_of(piece->span, KV_KEYS);
    size_t head_blocks = blocks_of(side.head_dim);
    const float *heads[SCORE_HEADS];
    float part[CODE_HEADS][GROUP_TOKENS], offsets[SCORE_HEADS] = {0};
    for (size_t h = 0; h < n_heads; h++)
        heads[h] = q + h * side.head_dim;
    if (!side.woven.by_channel)
        quantize_heads(heads, n_heads, NULL, side.head_dim, 2, queries, head_blocks);
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens;
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        CodedGroup group = group_at(&side, piece->first + done);
        if (side.woven.by_channel)
            scale_queries(&side, &group, heads, n_heads, queries, offsets);
        for (size_t h = 0, n_block; h < n_heads; h += n_block) {
            float *out = scores[h] + piece->at + done;
            bool whole = n == side.group_tokens;
            n_block = code_heads(n_heads - h);
            score_heads(n_block,
                        &(CodedKeys){.side = &side,
                                     .group = group,
                                     .queries = queries + h * head_blocks,
                                     .head_blocks = head_blocks,
                                     .offsets = offsets + h,
                                     .scores = whole ? out : part[0],
                                     .stride = whole ? SCORE_STRIDE : GROUP_TOKENS},
                        first, first + n);
            for (size_t i = 0; i < n_block && !whole; i++)
                memcpy(out + i * SCORE_STRIDE, part[i] + first, n * sizeof *out);
        }
    }
}
