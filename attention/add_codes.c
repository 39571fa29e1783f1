/* Weights times codes of values, compiled once for each instruction set; see code_products.h. Elements stand in lanes.
 */
#include "attention/coded_groups.h"

/* Rows' weights with a group's tokens times the scales of each block of elements, and what the minima add. */
typedef struct GroupWeights {
    const NumberBlock *numbers; /* (n_rows, n_blocks) */
    const float *offsets;       /* the same */
} GroupWeights;

static void scale_weights(const Side *side, const Group *group, const float *const *rows, size_t n_rows,
                          NumberBlock *numbers, float *offsets) {
    size_t n_blocks = side->woven.n_blocks;
    for (size_t block = 0; block < n_blocks; block++) {
        size_t at = block * side->group_tokens;
        make_rows(rows, n_rows, group->scales + at, side->group_tokens, 1, numbers + block, n_blocks);
        for (size_t r = 0; r < n_rows; r++)
            offsets[r * n_blocks + block] =
                side->woven.has_minima ? dot(rows[r], group->minima + at, side->group_tokens) : 0.0f;
    }
}

/* Adds the products of a tile's 16 tokens with 2 * VEC_LANES elements. */
INLINE void add_value_tile(size_t n_rows, size_t bits, const Side *side, const uint8_t *from,
                           const NumberBlock *numbers, size_t row_stride, size_t first_step, Sums sums) {
    size_t n = widest_plane(bits);
    ask_ahead(bits, side, from);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += VECS) {
#pragma GCC unroll 4
        for (size_t step = i; step < PLANE_STEPS; step += n == 1 ? VECS : n) { /* those that share a piece together */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(from, bits, step + v);
            add_step(n_rows, bits == 8, codes, numbers, row_stride, first_step + step / VECS, sums);
        }
    }
}

/* Adds 2 * VEC_LANES elements of a block of 32: those of a vector of the first 16, and those 16 further. */
INLINE void add_elements(size_t n_rows, size_t bits, const Side *side, const Group *group, size_t first, size_t end,
                         const GroupWeights *w, size_t d, size_t i, float *out, size_t stride) {
    Sums sums;
    size_t scale_block = d / side->woven.block, n_blocks = side->woven.n_blocks;
    const NumberBlock *numbers = w->numbers + scale_block;
    clear_sums(n_rows, sums);
    for (size_t token = first / KV_WOVEN_TOKENS * KV_WOVEN_TOKENS; token < end; token += KV_WOVEN_TOKENS)
        add_value_tile(n_rows, bits, side, tile_at(bits, side, group, token, d / KV_WOVEN_BLOCK) + i * 4, numbers,
                       n_blocks, token / 4, sums);
    for (size_t r = 0; r < n_rows; r++) {
        const NumberBlock *x = numbers + r * n_blocks;
        Vec scale = vec_set1(x->scale), offset = vec_set1(w->offsets[r * n_blocks + scale_block]);
        for (size_t v = 0; v < VECS; v++) {
            float *to = out + r * stride + d + 16 * v + i;
            VecInt total = biased_total(side, sums[r][v], x->sums[0]);
            vec_store(to, vec_add(vec_load(to), vec_fma(vec_int_to_float(total), scale, offset)));
        }
    }
}

INLINE void add_group(size_t n_rows, size_t bits, const Side *side, const Group *group, size_t first, size_t end,
                      const GroupWeights *w, float *out, size_t stride) {
    for (size_t d = 0; d < side->head_dim; d += KV_WOVEN_BLOCK)
        for (size_t i = 0; i < 16; i += VEC_LANES)
            add_elements(n_rows, bits, side, group, first, end, w, d, i, out, stride);
}

INLINE void add_row_block(const Side *side, const Group *group, size_t first, size_t end, const GroupWeights *w,
                          size_t n_rows, float *out, size_t stride) {
#define ADD_GROUP(bits)                                                                                                \
    case bits:                                                                                                         \
        if (KV_HAS_VALUES(bits))                                                                                       \
            WITH_CODE_ROWS(n_rows, add_group, bits, side, group, first, end, w, out, stride);                          \
        break;
    switch (side->woven.bits) { KV_WIDTHS(ADD_GROUP) }
}

/* A row of weights with a whole group's tokens, of which `seen` stand in `weights`, from token `first` on; the others
 * are 0. */
static const float *whole_row(const float *weights, size_t first, size_t seen, size_t group_tokens,
                              float room[GROUP_TOKENS]) {
    if (seen == group_tokens)
        return weights;
    memset(room, 0, group_tokens * sizeof *room);
    memcpy(room + first, weights, seen * sizeof *room);
    return room;
}

void SIMD_NAME(add_codes)(NumberBlock *numbers, const TilePiece *piece, float (*weights)[SCORE_STRIDE],
                          const size_t *n_seen, size_t n_rows, float *out, size_t stride) {
    Side side = side_of(piece->span, KV_VALUES);
    float room[SCORE_ROWS][GROUP_TOKENS], offsets[SCORE_ROWS * ATTENTION_MAX_DIM / KV_WOVEN_BLOCK];
    size_t n_blocks = side.woven.n_blocks;
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens, begin = piece->at + done, first_row = 0;
        const float *rows[SCORE_ROWS];
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        Group group = group_at(&side, piece->first + done);
        while (first_row < n_rows && n_seen[first_row] <= begin)
            first_row++;
        for (size_t r = first_row; r < n_rows; r++)
            rows[r] = whole_row(weights[r] + begin, first, at_most(n_seen[r] - begin, n), side.group_tokens, room[r]);
        scale_weights(&side, &group, rows + first_row, n_rows - first_row, numbers, offsets);
        for (size_t r = first_row, n_block; r < n_rows; r += n_block) {
            size_t at = (r - first_row) * n_blocks;
            n_block = code_rows(n_rows - r);
            add_row_block(&side, &group, first, first + n, &(GroupWeights){numbers + at, offsets + at}, n_block,
                          out + r * stride, stride);
        }
    }
}
