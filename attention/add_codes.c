/* Weights times codes of values, compiled once for each instruction set; see code_products.h. Elements stand in lanes.
 */
#include "attention/coded_groups.h"

/* Rows' weights with a group's tokens times the scales of each block of elements, and what the minima add. */
typedef struct GroupWeights {
    const QuantizedBlock *quantized; /* (n_heads, n_blocks) */
    const float *offsets;            /* the same */
} GroupWeights;

static void scale_weights(const CodedSide *side, const Group *group, const float *const *heads, size_t n_heads,
                          QuantizedBlock *quantized, float *offsets) {
    size_t n_blocks = side->woven.n_blocks;
    for (size_t block = 0; block < n_blocks; block++) {
        size_t at = block * side->group_tokens;
        quantize_heads(heads, n_heads, group->scales + at, side->group_tokens, 1, quantized + block, n_blocks);
        for (size_t r = 0; r < n_heads; r++)
            offsets[r * n_blocks + block] =
                side->woven.has_minima ? dot(heads[r], group->minima + at, side->group_tokens) : 0.0f;
    }
}

/* Adds the products of a pack's 16 tokens with 2 * VEC_LANES elements. */
INLINE void add_value_pack(size_t n_heads, size_t bits, const CodedSide *side, const uint8_t *from,
                           const QuantizedBlock *quantized, size_t head_stride, size_t first_step, Sums sums) {
    size_t n = widest_plane(bits);
    ask_ahead(bits, side, from);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += VECS) {
#pragma GCC unroll 4
        for (size_t step = i; step < PLANE_STEPS; step += n == 1 ? VECS : n) { /* those that share a piece together */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(from, bits, step + v);
            add_step(n_heads, bits == 8, codes, quantized, head_stride, first_step + step / VECS, sums);
        }
    }
}

/* Adds 2 * VEC_LANES elements of a block of 32: those of a vector of the first 16, and those 16 further. */
INLINE void add_elements(size_t n_heads, size_t bits, const CodedSide *side, const Group *group, size_t first,
                         size_t end, const GroupWeights *w, size_t d, size_t i, float *out, size_t stride) {
    Sums sums;
    size_t scale_block = d / side->woven.block, n_blocks = side->woven.n_blocks;
    const QuantizedBlock *quantized = w->quantized + scale_block;
    clear_sums(n_heads, sums);
    for (size_t token = first / KV_WOVEN_TOKENS * KV_WOVEN_TOKENS; token < end; token += KV_WOVEN_TOKENS)
        add_value_pack(n_heads, bits, side, pack_at(bits, side, group, token, d / KV_WOVEN_BLOCK) + i * 4, quantized,
                       n_blocks, token / 4, sums);
    for (size_t r = 0; r < n_heads; r++) {
        const QuantizedBlock *x = quantized + r * n_blocks;
        Vec scale = vec_set1(x->scale), offset = vec_set1(w->offsets[r * n_blocks + scale_block]);
        for (size_t v = 0; v < VECS; v++) {
            float *to = out + r * stride + d + 16 * v + i;
            VecInt total = biased_total(side, sums[r][v], x->sums[0]);
            vec_store(to, vec_add(vec_load(to), vec_fma(vec_int_to_float(total), scale, offset)));
        }
    }
}

INLINE void add_group(size_t n_heads, size_t bits, const CodedSide *side, const Group *group, size_t first, size_t end,
                      const GroupWeights *w, float *out, size_t stride) {
    for (size_t d = 0; d < side->head_dim; d += KV_WOVEN_BLOCK)
        for (size_t i = 0; i < 16; i += VEC_LANES)
            add_elements(n_heads, bits, side, group, first, end, w, d, i, out, stride);
}

INLINE void add_heads(const CodedSide *side, const Group *group, size_t first, size_t end, const GroupWeights *w,
                      size_t n_heads, float *out, size_t stride) {
#define ADD_GROUP(bits)                                                                                                \
    case bits:                                                                                                         \
        if (KV_HAS_VALUES(bits))                                                                                       \
            WITH_CODE_HEADS(n_heads, add_group, bits, side, group, first, end, w, out, stride);                        \
        break;
    switch (side->woven.bits) { KV_WIDTHS(ADD_GROUP) }
}

/* A row of weights with a whole group's tokens, of which `seen` stand in `weights`, from token `first` on; the others
 * are 0. */
static const float *whole_group(const float *weights, size_t first, size_t seen, size_t group_tokens,
                                float scratch[GROUP_TOKENS]) {
    if (seen == group_tokens)
        return weights;
    memset(scratch, 0, group_tokens * sizeof *scratch);
    memcpy(scratch + first, weights, seen * sizeof *scratch);
    return scratch;
}

void SIMD_NAME(add_codes)(QuantizedBlock *quantized, const TilePiece *piece, float (*weights)[SCORE_STRIDE],
                          const size_t *n_seen, size_t n_heads, float *out, size_t stride) {
    CodedSide side = side_of(piece->span, KV_VALUES);
    float scratch[SCORE_HEADS][GROUP_TOKENS], offsets[SCORE_HEADS * ATTENTION_MAX_DIM / KV_WOVEN_BLOCK];
    size_t n_blocks = side.woven.n_blocks;
    for (size_t done = 0, n; done < piece->n; done += n) {
        size_t first = (piece->first + done) % side.group_tokens, begin = piece->at + done, first_head = 0;
        const float *heads[SCORE_HEADS];
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        Group group = group_at(&side, piece->first + done);
        while (first_head < n_heads && n_seen[first_head] <= begin)
            first_head++;
        for (size_t r = first_head; r < n_heads; r++)
            heads[r] =
                whole_group(weights[r] + begin, first, at_most(n_seen[r] - begin, n), side.group_tokens, scratch[r]);
        scale_weights(&side, &group, heads + first_head, n_heads - first_head, quantized, offsets);
        for (size_t r = first_head, n_block; r < n_heads; r += n_block) {
            size_t at = (r - first_head) * n_blocks;
            n_block = code_heads(n_heads - r);
            add_heads(&side, &group, first, first + n, &(GroupWeights){quantized + at, offsets + at}, n_block,
                      out + r * stride, stride);
        }
    }
}
