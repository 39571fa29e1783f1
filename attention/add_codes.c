/* Weights times codes of values, compiled once for each instruction set; see code_products.h. Elements stand in lanes.
 */
#include "attention/coded_groups.h"

/* The weights of some query heads for tokens of a group, times the scales of each block of elements. */
typedef struct CodedValues {
    const CodedSide *side;
    CodedGroup group;
    size_t first, end;             /* tokens of the group; the weights of others are 0 */
    const QuantizedBlock *weights; /* (n_heads, n_blocks) */
    const float *offsets;          /* (n_heads, n_blocks) what the minima add */
    float *out;                    /* (n_heads, head_dim), heads `stride` apart */
    size_t stride;
} CodedValues;

static void scale_weights(const CodedSide *side, const CodedGroup *group, const float *const *heads, size_t n_heads,
                          QuantizedBlock *weights, float *offsets) {
    size_t n_blocks = side->woven.n_blocks;
    for (size_t block = 0; block < n_blocks; block++) {
        size_t at = block * side->group_tokens;
        quantize_heads(heads, n_heads, group->scales + at, side->group_tokens, 1, weights + block, n_blocks);
        for (size_t h = 0; h < n_heads; h++)
            offsets[h * n_blocks + block] =
                side->woven.has_minima ? dot(heads[h], group->minima + at, side->group_tokens) : 0.0f;
    }
}

/* Adds the products of a pack's 16 tokens, from `token` of the group on, with 2 * VEC_LANES elements. */
INLINE void add_value_pack(size_t n_heads, size_t bits, const CodedValues *values, const uint8_t *pack,
                           const QuantizedBlock *weights, size_t token, Sums sums) {
    size_t n = widest_plane(bits);
    prefetch_pack(bits, values->side, pack);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += VECS) {
#pragma GCC unroll 4
        for (size_t step = i; step < PLANE_STEPS; step += n == 1 ? VECS : n) { /* steps that share a piece */
            VecInt codes[VECS];
            for (size_t v = 0; v < VECS; v++)
                codes[v] = planes_step(pack, bits, step + v);
            add_step(n_heads, bits == 8, codes, weights, values->side->woven.n_blocks, token / 4 + step / VECS, sums);
        }
    }
}

/* Adds to 2 * VEC_LANES elements of the block of 32 at d: a vector of its first 16, from i on, and the vector 16
 * elements behind it. */
INLINE void add_elements(size_t n_heads, size_t bits, const CodedValues *values, size_t d, size_t i) {
    const CodedSide *side = values->side;
    size_t scale_block = d / side->woven.block, n_blocks = side->woven.n_blocks;
    const QuantizedBlock *weights = values->weights + scale_block;
    Sums sums;
    clear_sums(n_heads, sums);
    for (size_t token = values->first / KV_WOVEN_TOKENS * KV_WOVEN_TOKENS; token < values->end;
         token += KV_WOVEN_TOKENS) {
        const uint8_t *pack = pack_at(bits, side, &values->group, token, d / KV_WOVEN_BLOCK) + i * 4;
        add_value_pack(n_heads, bits, values, pack, weights, token, sums);
    }
    for (size_t h = 0; h < n_heads; h++) {
        const QuantizedBlock *x = weights + h * n_blocks;
        Vec scale = vec_set1(x->scale), offset = vec_set1(values->offsets[h * n_blocks + scale_block]);
        for (size_t v = 0; v < VECS; v++) {
            float *to = values->out + h * values->stride + d + 16 * v + i;
            VecInt total = biased_total(side, sums[h][v], x->sums[0]);
            vec_store(to, vec_add(vec_load(to), vec_fma(vec_int_to_float(total), scale, offset)));
        }
    }
}

INLINE void add_group(size_t n_heads, size_t bits, const CodedValues *values) {
    for (size_t d = 0; d < values->side->head_dim; d += KV_WOVEN_BLOCK)
        for (size_t i = 0; i < 16; i += VEC_LANES)
            add_elements(n_heads, bits, values, d, i);
}

static void add_heads(size_t n_heads, const CodedValues *values) {
#define ADD_GROUP(bits)                                                                                                \
    case bits:                                                                                                         \
        if (KV_HAS_VALUES(bits))                                                                                       \
            WITH_CODE_HEADS(n_heads, add_group, bits, values);                                                         \
        break;
    switch (values->side->woven.bits) { KV_WIDTHS(ADD_GROUP) }
}

/* A query head's weights for all tokens of a group: `weights` for the `seen` ones from `first` on, 0 for the others. */
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
        size_t first = (piece->first + done) % side.group_tokens, begin = piece->at + done, blind = 0;
        const float *heads[SCORE_HEADS];
        n = rest_of_group(piece->span, piece->first + done, piece->n - done);
        CodedGroup group = group_at(&side, piece->first + done);
        while (blind < n_heads && n_seen[blind] <= begin) /* heads that see none of its tokens */
            blind++;
        for (size_t h = blind; h < n_heads; h++)
            heads[h] =
                whole_group(weights[h] + begin, first, at_most(n_seen[h] - begin, n), side.group_tokens, scratch[h]);
        scale_weights(&side, &group, heads + blind, n_heads - blind, quantized, offsets);
        for (size_t h = blind, n_block; h < n_heads; h += n_block) {
            size_t at = (h - blind) * n_blocks;
            n_block = code_heads(n_heads - h);
            add_heads(n_block, &(CodedValues){.side = &side,
                                              .group = group,
                                              .first = first,
                                              .end = first + n,
                                              .weights = quantized + at,
                                              .offsets = offsets + at,
                                              .out = out + h * stride,
                                              .stride = stride});
        }
    }
}
