/* Queries times codes of keys, compiled once for each instruction set; see code_products.h. Tokens stand in lanes. */
#include "attention/coded_groups.h"

/* Adds the products of a block of 32 elements with the vectors of tokens from `token` of a group on. */
INLINE void add_key_block(size_t n_heads, size_t bits, const CodedSide *side, const Group *group, size_t token,
                          size_t block, const QuantizedBlock *quantized, size_t head_blocks, Sums sums) {
    size_t first = block * PLANE_STEPS % QUANTIZED_STEPS, n = widest_plane(bits);
    const uint8_t *from[VECS];
    for (size_t v = 0; v < VECS; v++) {
        size_t t = token + v * VEC_LANES;
        from[v] = pack_at(bits, side, group, t, block) + t % KV_WOVEN_TOKENS * 4;
        ask_ahead(bits, side, from[v]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (size_t step = i; step < PLANE_STEPS; step += n) { /* those that share a piece together */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(from[v], bits, step);
            add_step(n_heads, bits == 8, codes, quantized, head_blocks, first + step, sums);
        }
    }
}

/* The scores of the vectors of tokens from `token` of a group on. */
INLINE void score_vectors(size_t n_heads, size_t bits, bool by_channel, const CodedSide *side, const Group *group,
                          size_t token, const QuantizedBlock *quantized, const float *offsets, float *out,
                          size_t stride) {
    Vec totals[CODE_HEADS][VECS];
    Sums sums;
    size_t n_blocks = side->head_dim / KV_WOVEN_BLOCK, head_blocks = blocks_of(side->head_dim);
    for (size_t r = 0; r < n_heads; r++)
        for (size_t v = 0; v < VECS; v++)
            totals[r][v] = vec_set1(by_channel ? offsets[r] : 0.0f);
    for (size_t block = 0, run; block < n_blocks; block += run) {
        const QuantizedBlock *x = quantized + block / 2;
        run = by_channel && n_blocks - block >= 2 ? 2 : 1;
        clear_sums(n_heads, sums);
        for (size_t b = block; b < block + run; b++)
            add_key_block(n_heads, bits, side, group, token, b, x, head_blocks, sums);
        for (size_t r = 0; r < n_heads; r++, x += head_blocks) {
            int32_t sum = by_channel ? x->sums[0] : x->sums[block % 2];
            for (size_t v = 0; v < VECS; v++) {
                size_t t = block * side->group_tokens + v * VEC_LANES + token;
                VecInt total = biased_total(side, sums[r][v], sum);
                Vec scale = vec_set1(x->scale);
                if (!by_channel)
                    scale = vec_mul(scale, vec_load_half(group->scales + t));
                totals[r][v] = vec_fma(vec_int_to_float(total), scale, totals[r][v]);
                if (!by_channel && side->woven.has_minima)
                    totals[r][v] =
                        vec_fma(vec_load_half(group->minima + t), vec_set1(x->scale * (float)sum), totals[r][v]);
            }
        }
    }
    for (size_t r = 0; r < n_heads; r++)
        for (size_t v = 0; v < VECS; v++)
            vec_store(out + r * stride + token + v * VEC_LANES, totals[r][v]);
}

/* Of tokens [first, end) and their neighbours in the same vectors. */
INLINE void score_group(size_t n_heads, size_t bits, bool by_channel, const CodedSide *side, const Group *group,
                        size_t first, size_t end, const QuantizedBlock *quantized, const float *offsets, float *out,
                        size_t stride) {
    const size_t step = VECS * VEC_LANES; /* groups are whole steps */
    for (size_t token = first / step * step; token < end; token += step)
        score_vectors(n_heads, bits, by_channel, side, group, token, quantized, offsets, out, stride);
}

INLINE void score_heads(const CodedSide *side, const Group *group, size_t first, size_t end,
                        const QuantizedBlock *quantized, const float *offsets, size_t n_heads, float *out,
                        size_t stride) {
#define SCORE_GROUP(bits, by_channel)                                                                                  \
    if (KV_HAS_KEYS(bits, by_channel))                                                                                 \
    WITH_CODE_HEADS(n_heads, score_group, bits, by_channel, side, group, first, end, quantized, offsets, out, stride)
#define SCORE_WIDTH(bits)                                                                                              \
    case bits:                                                                                                         \
        if (side->woven.by_channel) {                                                                                  \
            SCORE_GROUP(bits, true);                                                                                   \
        } else {                                                                                                       \
            SCORE_GROUP(bits, false);                                                                                  \
        }                                                                                                              \
        break;
    switch (side->woven.bits) { KV_WIDTHS(SCORE_WIDTH) }
}

/* Numbers of the queries times the channels' scales, and what the channels' minima add to a score. */
static void scale_queries(const CodedSide *side, const Group *group, const float *const *heads, size_t n_heads,
                          QuantizedBlock *quantized, float *offsets) {
    quantize_heads(heads, n_heads, group->scales, side->head_dim, 1, quantized, blocks_of(side->head_dim));
    for (size_t r = 0; r < n_heads; r++)
        offsets[r] = side->woven.has_minima ? dot(heads[r], group->minima, side->head_dim) : 0.0f;
}

void SIMD_NAME(score_codes)(QuantizedBlock *quantized, const TilePiece *piece, const float *q, size_t n_heads,
                            float (*scores)[SCORE_STRIDE]) {
    CodedSide side = side_of(piece->span, KV_KEYS);
    size_t head_blocks = blocks_of(side.head_dim);
    const float *heads[SCORE_HEADS];
    float part[CODE_HEADS][GROUP_TOKENS], offsets[SCORE_HEADS] = {0};
    for (size_t r = 0; r < n_heads; r++)
        heads[r] = q + r * side.head_dim;
    if (!side.woven.by_channel)
        quantize_heads(heads, n_heads, NULL, side.head_dim, 2, quantized, head_blocks);
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens;
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        Group group = group_at(&side, piece->first + done);
        if (side.woven.by_channel)
            scale_queries(&side, &group, heads, n_heads, quantized, offsets);
        for (size_t r = 0, n_block; r < n_heads; r += n_block) {
            float *out = scores[r] + piece->at + done;
            bool whole = n == side.group_tokens;
            n_block = code_heads(n_heads - r);
            score_heads(&side, &group, first, first + n, quantized + r * head_blocks, offsets + r, n_block,
                        whole ? out : part[0], whole ? SCORE_STRIDE : GROUP_TOKENS);
            for (size_t i = 0; i < n_block && !whole; i++)
                memcpy(out + i * SCORE_STRIDE, part[i] + first, n * sizeof *out);
        }
    }
}
