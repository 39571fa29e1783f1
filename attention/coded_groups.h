/* What score_codes.c and add_codes.c share: floats as 16-bit numbers, where a group's codes are, and a step of their
 * products. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_CODED_GROUPS_H
#define STOWKV_CODED_GROUPS_H

#include "attention/code_products.h"
#include "attention/row_kernels.h"
#include "model/base/simd_codes.h"

#include <float.h>

#define GROUP_TOKENS 64       /* at most */
#define MOST         32639.0f /* 127 * 256 + 127: what two planes hold */

#if VEC_LANES == 8
#define CODE_ROWS 2 /* 8 sums, 4 vectors of codes: fits 16 registers */
#else
#define CODE_ROWS 4 /* 16 sums: fits 32 registers */
#endif

INLINE int32_t sum_of(const VecInt *whole, size_t n) {
    VecInt sum = whole[0];
    for (size_t i = 1; i < n / VEC_LANES; i++)
        sum = vec_int_add(sum, whole[i]);
    return vec_int_sum(sum);
}

/* Of n numbers of each row; not finite where a number is not. */
INLINE void largest_magnitudes(size_t n_rows, Vec (*v)[NUMBERS / VEC_LANES], size_t n, float *largest) {
    VecInt most[4];
    int32_t bits[4];
    for (size_t r = 0; r < n_rows; r++)
        most[r] = vec_magnitudes(v[r], n / VEC_LANES);
    for (size_t r = n_rows; r < 4; r++)
        most[r] = most[0];
    vec_int_store_largest(bits, most[0], most[1], most[2], most[3]);
    memcpy(largest, bits, n_rows * sizeof *bits);
}

/* n numbers, from `at` on, of some rows times factors, as whole numbers of one scale to a row. */
INLINE void make_numbers(size_t n_rows, const float *const *rows, size_t at, const uint16_t *factors, size_t n,
                         size_t n_sums, NumberBlock *out, size_t stride) {
    Vec v[CODE_ROWS][NUMBERS / VEC_LANES];
    float largest[CODE_ROWS];
    for (size_t i = 0; i < n / VEC_LANES; i++) {
        Vec factor = factors == NULL ? vec_set1(1.0f) : vec_load_half(factors + at + i * VEC_LANES);
        for (size_t r = 0; r < n_rows; r++) {
            v[r][i] = vec_load(rows[r] + at + i * VEC_LANES);
            if (factors != NULL)
                v[r][i] = vec_mul(v[r][i], factor);
        }
    }
    largest_magnitudes(n_rows, v, n, largest);
    for (size_t r = 0; r < n_rows; r++, out += stride) {
        VecInt whole[NUMBERS / VEC_LANES];
        bool finite = largest[r] <= FLT_MAX;
        float inverse = finite && largest[r] >= 0x1p-100f ? MOST / largest[r] : 0.0f; /* too small to have one: zero */
        for (size_t i = 0; i < n / VEC_LANES; i++)
            whole[i] = vec_int_round(vec_mul(finite ? v[r][i] : vec_zero(), vec_set1(inverse)));
        store_numbers(out->words, n, whole);
        out->scale = finite ? largest[r] * (1.0f / MOST) : NAN;
        out->sums[0] = n_sums > 0 ? sum_of(whole, n_sums == 1 ? n : 32) : 0;
        out->sums[1] = n_sums == 2 && n > 32 ? sum_of(whole + 32 / VEC_LANES, 32) : 0;
    }
}

static inline size_t blocks_of(size_t n) {
    return (n + NUMBERS - 1) / NUMBERS;
}

/* Some rows of n numbers, times factors in FP16 or NULL. n_sums: 2, of both halves of a block; 1, of all; 0, none. */
INLINE void make_rows(size_t n_rows, const float *const *rows, const uint16_t *factors, size_t n, size_t n_sums,
                      NumberBlock *out, size_t stride) {
    for (size_t i = 0; i < n; i += NUMBERS, out++)
        if (n - i >= NUMBERS)
            make_numbers(n_rows, rows, i, factors, NUMBERS, n_sums, out, stride);
        else
            make_numbers(n_rows, rows, i, factors, KV_WOVEN_BLOCK, n_sums, out, stride);
}

static inline float dot(const float *a, const uint16_t *b, size_t n) {
    Vec sum = vec_zero();
    for (size_t i = 0; i < n; i += VEC_LANES)
        sum = vec_fma(vec_load(a + i), vec_load_half(b + i), sum);
    return vec_sum(sum);
}

/* One side of a span. */
typedef struct Side {
    const KvSpan *span;
    KvSide side;
    KvWoven woven;
    size_t head_dim, group_tokens;
    size_t ahead; /* from what is read to what is asked for: whole records, or lines would be left out */
} Side;

static inline Side side_of(const KvSpan *span, KvSide side) {
    const KvEncoding *encoding = &span->side[side];
    return (Side){.span = span,
                  .side = side,
                  .woven = kv_woven(kv_codec_id(encoding->codec), side, &encoding->group),
                  .head_dim = encoding->group.head_dim,
                  .group_tokens = encoding->group.n_tokens,
                  .ahead = round_up(PREFETCH_BYTES, encoding->record_bytes)};
}

typedef struct Group {
    const uint16_t *scales, *minima; /* FP16 */
    const uint8_t *codes;
} Group;

/* The group that holds a token. */
static inline Group group_at(const Side *side, size_t token) {
    const uint8_t *record = record_of(side->span, side->side, token);
    for (size_t i = 0; i < side->woven.codes; i += 64)
        __builtin_prefetch(record + side->ahead + i);
    return (Group){(const uint16_t *)(const void *)record,
                   (const uint16_t *)(const void *)(record + side->woven.minima), record + side->woven.codes};
}

/* Codes of a block of 32 elements of the 16 tokens that `token` is among. */
INLINE const uint8_t *tile_at(size_t bits, const Side *side, const Group *group, size_t token, size_t block) {
    size_t tile = token / KV_WOVEN_TOKENS * (side->head_dim / KV_WOVEN_BLOCK) + block;
    return group->codes + tile * KV_WOVEN_TILE(bits);
}

INLINE VecInt load_ahead(const Side *side, const uint8_t *from) {
    __builtin_prefetch(from + side->ahead);
    return vec_int_load(from);
}

#define FIFTH_BITS KV_WOVEN_TILE(4) /* where they are in a tile */

INLINE size_t low_bits(size_t bits) {
    return bits == 5 ? 4 : bits;
}

/* Vector number `vector` of a tile's codes, of which `packed` holds the low bits and `fifth` the fifth. */
INLINE VecInt unpack_codes(size_t bits, VecInt packed, VecInt fifth, size_t vector) {
    size_t n = low_bits(bits);
    if (bits == 8)
        return packed;
    int32_t mask = ((1 << n) - 1) * 0x01010101;
    VecInt codes = vec_int_and(vec_int_shift_right(packed, (int)(vector / n * n)), vec_int_set1(mask));
    if (bits == 5) {
        VecInt high = vec_int_and(vec_int_shift_right(fifth, (int)vector), vec_int_set1(0x01010101));
        codes = vec_int_or(codes, vec_int_shift_left(high, 4));
    }
    return codes;
}

#define VECS 2 /* of tokens, or of elements, whose sums are held at once */

typedef VecInt Sums[CODE_ROWS][VECS][2];

/* Adds the products of one step, of which codes[v] are the codes. */
INLINE void add_step(size_t n_rows, size_t n_vecs, bool wide, const VecInt codes[VECS], const NumberBlock *numbers,
                     size_t row_stride, size_t step, Sums sums) {
    CodeStep steps[VECS];
    for (size_t v = 0; v < n_vecs; v++)
        steps[v] = code_step(codes[v]);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t part = 0; part < 2; part++) {
            VecInt x = vec_int_set1(numbers[r * row_stride].words[number_word(step, part)]);
            for (size_t v = 0; v < n_vecs; v++)
                sums[r][v][part] = code_dot(wide, sums[r][v][part], steps[v].part[part], x);
        }
}

INLINE void clear_sums(size_t n_rows, size_t n_vecs, Sums sums) {
    for (size_t r = 0; r < n_rows; r++)
        for (size_t v = 0; v < n_vecs; v++)
            sums[r][v][0] = sums[r][v][1] = vec_int_zero();
}

/* What is to be taken from the sums of a row: the products as if codes were what they stand for. */
INLINE VecInt biased_total(const Side *side, const VecInt sums[2], int32_t sum_of_numbers) {
    VecInt total = code_total(sums);
    if (side->woven.factor == 2)
        total = vec_int_add(total, total);
    if (side->woven.bias > 0)
        total = vec_int_sub(total, vec_int_set1(side->woven.bias * sum_of_numbers));
    return total;
}

/* Calls a kernel with a constant number of rows, 1 to CODE_ROWS. */
#if CODE_ROWS == 4
#define WITH_CODE_ROWS(n_rows, kernel, ...) WITH_ROWS(n_rows, kernel, __VA_ARGS__)
#else
#define WITH_CODE_ROWS(n_rows, kernel, ...)                                                                            \
    do {                                                                                                               \
        if (n_rows == 1)                                                                                               \
            kernel(1, __VA_ARGS__);                                                                                    \
        else                                                                                                           \
            kernel(2, __VA_ARGS__);                                                                                    \
    } while (0)
#endif

static inline size_t code_rows(size_t n_rows) {
    return at_most(n_rows, CODE_ROWS);
}

#endif
