/* What score_codes.c and add_codes.c share: where a group's codes are, and a step of products with them. To be
 * included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_CODED_GROUPS_H
#define STOWKV_CODED_GROUPS_H

#include "attention/quantize.h"
#include "base/simd/bit_planes.h"

#define GROUP_TOKENS 64 /* at most */

#if VEC_LANES == 8 && CODE_SUMS == 2
#define CODE_HEADS 2 /* query heads whose products are made at once: 8 sums, 2 vectors of codes: fits 16 registers */
#else
#define CODE_HEADS 4 /* 8 or 16 sums: fits 16 or 32 registers */
#endif

/* One side of a span. */
typedef struct CodedSide {
    const KvSpan *span;
    KvSide side;
    KvWoven woven;
    size_t head_dim, group_tokens;
    size_t ahead; /* prefetch distance in bytes, a multiple of the record size, so that no cache line is skipped */
} CodedSide;

static inline CodedSide side_of(const KvSpan *span, KvSide side) {
    const KvEncoding *encoding = &span->side[side];
    return (CodedSide){.span = span,
                       .side = side,
                       .woven = kv_woven(encoding->codec, side, &encoding->group),
                       .head_dim = encoding->group.head_dim,
                       .group_tokens = encoding->group.n_tokens,
                       .ahead = round_up(PREFETCH_BYTES, encoding->record_bytes)};
}

typedef struct CodedGroup {
    const uint16_t *scales, *minima; /* FP16 */
    const uint8_t *codes;
} CodedGroup;

/* The group that holds a token of the span; prefetches the scales of a later one. */
static inline CodedGroup group_at(const CodedSide *side, size_t token) {
    const uint8_t *record = record_of(side->span, side->side, token);
    for (size_t i = 0; i < side->woven.codes; i += 64)
        __builtin_prefetch(record + side->ahead + i);
    return (CodedGroup){(const uint16_t *)(const void *)record,
                        (const uint16_t *)(const void *)(record + side->woven.minima), record + side->woven.codes};
}

/* The pack of block `block` of 32 elements, for the 16 tokens that `token` is one of; `token` counts in the group. */
INLINE const uint8_t *pack_at(size_t bits, const CodedSide *side, const CodedGroup *group, size_t token, size_t block) {
    size_t pack = token / KV_WOVEN_TOKENS * (side->head_dim / KV_WOVEN_BLOCK) + block;
    return group->codes + pack * planes_bytes(bits);
}

/* Prefetches the codes at this pack's place in a later group. */
INLINE void prefetch_pack(size_t bits, const CodedSide *side, const uint8_t *pack) {
    for (size_t i = 0; i < planes_bytes(bits); i += 64)
        __builtin_prefetch(pack + side->ahead + i);
}

#define VECS 2 /* vectors of tokens, or of elements, whose sums are held at once */

typedef VecInt Sums[CODE_HEADS][VECS][CODE_SUMS];

/* Adds the products of step `step` of a quantized block, whose codes in vector v are codes[v]. */
INLINE void add_step(size_t n_heads, bool wide, const VecInt codes[VECS], const QuantizedBlock *quantized,
                     size_t head_stride, size_t step, Sums sums) {
    VecInt parts[VECS][2];
    for (size_t v = 0; v < VECS; v++)
        for (size_t part = 0; part < 2; part++)
            parts[v][part] = code_part(codes[v], part);
    for (size_t r = 0; r < n_heads; r++)
        for (size_t part = 0; part < 2; part++) {
            VecInt x = vec_int_set1(quantized[r * head_stride].words[quantized_word(QUANTIZED_STEPS, step, part)]);
            for (size_t v = 0; v < VECS; v++)
                sums[r][v][part % CODE_SUMS] = code_dot(wide, sums[r][v][part % CODE_SUMS], parts[v][part], x);
        }
}

INLINE void clear_sums(size_t n_heads, Sums sums) {
    for (size_t r = 0; r < n_heads; r++)
        for (size_t v = 0; v < VECS; v++)
            for (size_t i = 0; i < CODE_SUMS; i++)
                sums[r][v][i] = vec_int_zero();
}

/* The sum of products with factor * code - bias (weave.h), made of the sums of products with codes. */
INLINE VecInt biased_total(const CodedSide *side, const VecInt sums[CODE_SUMS], int32_t sum_of_quantized) {
    VecInt total = code_total(sums);
    if (side->woven.factor == 2)
        total = vec_int_add(total, total);
    if (side->woven.bias > 0)
        total = vec_int_sub(total, vec_int_set1(side->woven.bias * sum_of_quantized));
    return total;
}

/* Calls a kernel with a constant number of heads, 1 to CODE_HEADS. */
#if CODE_HEADS == 4
#define WITH_CODE_HEADS(n_heads, kernel, ...) WITH_HEADS(n_heads, kernel, __VA_ARGS__)
#else
#define WITH_CODE_HEADS(n_heads, kernel, ...)                                                                          \
    do {                                                                                                               \
        if (n_heads == 1)                                                                                              \
            kernel(1, __VA_ARGS__);                                                                                    \
        else                                                                                                           \
            kernel(2, __VA_ARGS__);                                                                                    \
    } while (0)
#endif

static inline size_t code_heads(size_t n_heads) {
    return at_most(n_heads, CODE_HEADS);
}

#endif
