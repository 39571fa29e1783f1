/* Weights times codes of values, compiled once for each instruction set; see code_products.h. Elements stand in lanes.
 */
#include "attention/coded_groups.h"

/* Weights of rows with a group's tokens, 0 where the row does not see one; numbers (n_rows, n_blocks) and offsets of
 * them times the scales and minima of a block. */
typedef struct GroupWeights {
    float weights[CODE_ROWS][GROUP_TOKENS];
    NumberBlock numbers[CODE_ROWS][ATTENTION_MAX_DIM / KV_WOVEN_BLOCK];
    float offsets[CODE_ROWS][ATTENTION_MAX_DIM / KV_WOVEN_BLOCK];
} GroupWeights;

static void scale_weights(const Side *side, const Group *group, size_t row, const float *weights, GroupWeights *w) {
    for (size_t block = 0; block < side->woven.n_blocks; block++) {
        size_t at = block * side->group_tokens;
        make_row(weights, group->scales + at, side->group_tokens, side->woven.bias > 0, &w->numbers[row][block]);
        w->offsets[row][block] = side->woven.has_minima ? dot(weights, group->minima + at, side->group_tokens) : 0.0f;
    }
}

/* Adds 2 * VEC_LANES elements of a block of 32: those of a vector of the first 16, and those 16 further. */
INLINE void add_elements(size_t n_rows, size_t bits, const Side *side, const Group *group, size_t first, size_t end,
                         const GroupWeights *w, size_t d, size_t i, float *out, size_t stride) {
    Sums sums;
    size_t scale_block = d / side->woven.block, step_bytes = side->head_dim * bits / 2;
    const uint8_t *from = group->codes + (d * bits / 8 + i) * 4;
    clear_sums(n_rows, VECS, sums);
#pragma GCC unroll 4
    for (size_t step = first; step < end; step++) {
        const uint8_t *at = from + step * step_bytes;
        VecInt bytes = vec_int_load(at), codes[VECS] = {bytes, bytes};
        __builtin_prefetch(at + side->ahead);
        if (bits == 8) {
            codes[1] = vec_int_load(at + 64);
            __builtin_prefetch(at + 64 + side->ahead);
        } else {
            codes[0] = low_codes(bytes);
            codes[1] = high_codes(bytes);
        }
        add_step(n_rows, VECS, bits == 8, codes, &w->numbers[0][scale_block], ATTENTION_MAX_DIM / KV_WOVEN_BLOCK, step,
                 sums);
    }
    for (size_t r = 0; r < n_rows; r++) {
        const NumberBlock *x = &w->numbers[r][scale_block];
        Vec scale = vec_set1(x->scale), offset = vec_set1(w->offsets[r][scale_block]);
        for (size_t v = 0; v < VECS; v++) {
            float *to = out + r * stride + d + 16 * v + i;
            VecInt total = code_total(sums[r][v]);
            if (side->woven.bias > 0)
                total = vec_int_sub(total, vec_int_set1(side->woven.bias * x->sums[0]));
            vec_store(to, vec_add(vec_load(to), vec_fma(vec_int_to_float(total), scale, offset)));
        }
    }
}

INLINE void add_group(size_t n_rows, size_t bits, const Side *side, const Group *group, size_t first, size_t end,
                      const GroupWeights *w, float *out, size_t stride) {
    for (size_t d = 0; d < side->head_dim; d += KV_WOVEN_BLOCK)
        for (size_t i = 0; i < 16; i += VEC_LANES)
            add_elements(n_rows, bits, side, group, first / 4, (end + 3) / 4, w, d, i, out, stride);
}

void SIMD_NAME(add_codes)(const TilePiece *piece, float (*weights)[SCORE_STRIDE], const size_t *n_seen, size_t n_rows,
                          float *out, size_t stride) {
    Side side = side_of(piece->span, KV_VALUES);
    GroupWeights w;
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens, begin = piece->at + done, r = 0;
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        Group group = group_at(&side, piece->first + done);
        while (r < n_rows && n_seen[r] <= begin)
            r++;
        for (size_t n_block; r < n_rows; r += n_block) {
            n_block = code_rows(n_rows - r);
            for (size_t i = 0; i < n_block; i++) {
                const float *from = weights[r + i] + begin;
                size_t seen = at_most(n_seen[r + i] - begin, n);
                if (seen < side.group_tokens) {
                    memset(w.weights[i], 0, sizeof w.weights[i]);
                    memcpy(w.weights[i] + first, from, seen * sizeof *from);
                    from = w.weights[i];
                }
                scale_weights(&side, &group, i, from, &w);
            }
            if (side.woven.bits == 8)
                WITH_CODE_ROWS(n_block, add_group, 8, &side, &group, first, first + n, &w, out + r * stride, stride);
            else
                WITH_CODE_ROWS(n_block, add_group, 4, &side, &group, first, first + n, &w, out + r * stride, stride);
        }
    }
}
