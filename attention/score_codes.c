/* Queries times codes of keys, compiled once for each instruction set; see code_products.h. Tokens stand in lanes. */
#include "attention/coded_groups.h"

/* Adds the products of a block of 32 elements with the vectors of tokens from `token` of a group on. */
INLINE void add_key_block(size_t n_rows, size_t bits, const Side *side, const Group *group, size_t token, size_t block,
                          const NumberBlock *numbers, size_t row_blocks, Sums sums) {
    size_t first = block * PLANE_STEPS % NUMBER_STEPS, n = widest_plane(bits);
    const uint8_t *from[VECS];
    for (size_t v = 0; v < VECS; v++) {
        size_t t = token + v * VEC_LANES;
        from[v] = tile_at(bits, side, group, t, block) + t % KV_WOVEN_TOKENS * 4;
        ask_ahead(bits, side, from[v]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (size_t step = i; step < PLANE_STEPS; step += n) { /* those that share a piece together */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(from[v], bits, step);
            add_step(n_rows, bits == 8, codes, numbers, row_blocks, first + step, sums);
        }
    }
}

/* The scores of the vectors of tokens from `token` of a group on. */
INLINE void score_vectors(size_t n_rows, size_t bits, bool by_channel, const Side *side, const Group *group,
                          size_t token, const NumberBlock *numbers, const float *offsets, float *out, size_t stride) {
    Vec totals[CODE_ROWS][VECS];
    Sums sums;
    size_t n_blocks = side->head_dim / KV_WOVEN_BLOCK, row_blocks = blocks_of(side->head_dim);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t v = 0; v < VECS; v++)
            totals[r][v] = vec_set1(by_channel ? offsets[r] : 0.0f);
    for (size_t block = 0, run; block < n_blocks; block += run) {
        const NumberBlock *x = numbers + block / 2;
        run = by_channel && n_blocks - block >= 2 ? 2 : 1;
        clear_sums(n_rows, sums);
        for (size_t b = block; b < block + run; b++)
            add_key_block(n_rows, bits, side, group, token, b, x, row_blocks, sums);
        for (size_t r = 0; r < n_rows; r++, x += row_blocks) {
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
    for (size_t r = 0; r < n_rows; r++)
        for (size_t v = 0; v < VECS; v++)
            vec_store(out + r * stride + token + v * VEC_LANES, totals[r][v]);
}

/* Of tokens [first, end) and their neighbours in the same vectors. */
INLINE void score_group(size_t n_rows, size_t bits, bool by_channel, const Side *side, const Group *group, size_t first,
                        size_t end, const NumberBlock *numbers, const float *offsets, float *out, size_t stride) {
    const size_t step = VECS * VEC_LANES; /* groups are whole steps */
    for (size_t token = first / step * step; token < end; token += step)
        score_vectors(n_rows, bits, by_channel, side, group, token, numbers, offsets, out, stride);
}

INLINE void score_row_block(const Side *side, const Group *group, size_t first, size_t end, const NumberBlock *numbers,
                            const float *offsets, size_t n_rows, float *out, size_t stride) {
#define SCORE_GROUP(bits, by_channel)                                                                                  \
    if (KV_HAS_KEYS(bits, by_channel))                                                                                 \
    WITH_CODE_ROWS(n_rows, score_group, bits, by_channel, side, group, first, end, numbers, offsets, out, stride)
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
static void scale_queries(const Side *side, const Group *group, const float *const *rows, size_t n_rows,
                          NumberBlock *numbers, float *offsets) {
    make_rows(rows, n_rows, group->scales, side->head_dim, 1, numbers, blocks_of(side->head_dim));
    for (size_t r = 0; r < n_rows; r++)
        offsets[r] = side->woven.has_minima ? dot(rows[r], group->minima, side->head_dim) : 0.0f;
}

void SIMD_NAME(score_codes)(NumberBlock *numbers, const TilePiece *piece, const float *q, size_t n_rows,
                            float (*scores)[SCORE_STRIDE]) {
    Side side = side_of(piece->span, KV_KEYS);
    size_t row_blocks = blocks_of(side.head_dim);
    const float *rows[SCORE_ROWS];
    float part[CODE_ROWS][GROUP_TOKENS], offsets[SCORE_ROWS] = {0};
    for (size_t r = 0; r < n_rows; r++)
        rows[r] = q + r * side.head_dim;
    if (!side.woven.by_channel)
        make_rows(rows, n_rows, NULL, side.head_dim, 2, numbers, row_blocks);
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens;
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        Group group = group_at(&side, piece->first + done);
        if (side.woven.by_channel)
            scale_queries(&side, &group, rows, n_rows, numbers, offsets);
        for (size_t r = 0, n_block; r < n_rows; r += n_block) {
            float *out = scores[r] + piece->at + done;
            bool whole = n == side.group_tokens;
            n_block = code_rows(n_rows - r);
            score_row_block(&side, &group, first, first + n, numbers + r * row_blocks, offsets + r, n_block,
                            whole ? out : part[0], whole ? SCORE_STRIDE : GROUP_TOKENS);
            for (size_t i = 0; i < n_block && !whole; i++)
                memcpy(out + i * SCORE_STRIDE, part[i] + first, n * sizeof *out);
        }
    }
}
