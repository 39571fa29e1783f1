/* Fragment records: the form of records that a GPU's attention reads (kvcache/codec/record_form.h). The codes of a
 * group lie in the order in which the lanes of a warp hand them to mma.m16n8k16 as its first operand, so that a lane
 * loads 16 bytes at once, a warp 512 in a row, and bytes become FP16 numbers without moving between lanes.
 *
 * 32 tokens are a strip of two tiles of 16. A lane (4 g + j of a warp) takes part in n_steps = head_dim / 16 products a
 * tile; for each of them it has two quads of four codes:
 *
 *     keys    quad (tile, step, r): four elements of token 16 tile + 8 r + g         (rows are tokens, r: row g or g +
 * 8) values  quad (tile, step, r): one element of tokens 16 tile + 2 j + {0, 1, 8, 9}   (rows are elements)
 *
 * Elements are dealt out so that FP16 rows give the same ones to a lane in wide loads; see fragment_key_dim() and
 * fragment_value_dim(). Steps 2c and 2c + 1 have the elements of block c of 32, which share a scale at least.
 *
 * A record is: strips of codes, scales, minima.
 *
 *     codes    for each strip and each plane of the codec's width (base/bit_planes.h: the binary digits of the width,
 *              the widest first, low bits first): the words of 32 lanes. A word of a plane of b bits has 8 / b quads, a
 *              code of a quad in each byte, the first quad in the lowest bits. Words of a lane lie four together, what
 *              is left over two together, then one: (n_words / 4, 32, 4), (32, 2), (32)
 *     scales   FP16, by channel (head_dim) in natural order; by token (n_blocks, n_strips, 8, 4): token 8 i + g of a
 *              strip is at (g, i). Those of nf4 are codes of 8 bits in that order, behind FP16 minimum and step.
 *     minima   like scales, where the codec has them
 *
 * Each part begins at a multiple of 16 bytes. Where head_dim is no multiple of 16 the elements up to one are 0.
 * Codes are unsigned: two's complement is turned by 128, and a sign is a bit that is 1 for +. */
#ifndef STOWKV_CUDA_FRAGMENTS_H
#define STOWKV_CUDA_FRAGMENTS_H

#include "base/host_device.h"
#include "kvcache/codec/format.h"
#include "kvcache/codec/record_form.h"

#define FRAGMENT_STRIP  32 /* tokens */
#define FRAGMENT_LANES  32
#define FRAGMENT_STEP   16 /* elements */
#define FRAGMENT_BLOCK  32 /* elements of two steps */
#define FRAGMENT_ALIGN  16 /* bytes */
#define FRAGMENT_NF4_AT 16 /* where the codes of nf4's scales begin in the part of scales */

/* How records of one side of a tier are laid out: a number is minimum + scale * (factor * code - bias), or what the
 * kind says (KV_CODE_E4M3, KV_CODE_NF4), or an FP16 number (KV_CODE_HALF). */
typedef struct FragmentShape {
    KvCodeKind kind;
    KvSide side;
    int bits, bias, factor;
    bool is_ggml; /* the codes are chosen by GGML's formulas */
    bool by_channel, has_minima, rotated;
    uint32_t n_tokens; /* of a group */
    uint32_t head_dim, n_steps;
    uint32_t block, n_blocks; /* elements of a token that share a scale, and such blocks, where not by_channel */
    uint32_t strip_bytes;     /* codes of a strip, all planes */
    uint32_t scales, minima;  /* offsets of the parts */
    uint32_t record_bytes;
} FragmentShape;

FragmentShape fragment_shape(KvCodecId id, KvSide side, const KvGroup *group);

extern const KvRecordForm KV_FRAGMENT_RECORDS;

/* Where a code is: bits of `byte` of the quad's words. */
typedef struct FragmentPlace {
    uint32_t strip, lane, quad, byte;
} FragmentPlace;

static HOST_DEVICE inline uint32_t fragment_quad(uint32_t n_steps, uint32_t tile, uint32_t step, uint32_t r) {
    return (tile * n_steps + step) * 2 + r;
}

static HOST_DEVICE inline uint32_t fragment_quads(uint32_t n_steps) { /* of a lane, in a strip */
    return 4 * n_steps;
}

/* Element c of the quads of a step of keys, for lanes 4 g + j: of each block of 32 a lane has 8 in a row, four of them
 * in each of two steps; of a last half block, 4. */
static HOST_DEVICE inline uint32_t fragment_key_dim(uint32_t n_steps, uint32_t step, uint32_t j, uint32_t c) {
    return step == (n_steps & ~1u) ? 16 * step + 4 * j + c : 32 * (step / 2) + 8 * j + 4 * (step % 2) + c;
}

/* The element of a quad of values, for lanes 4 g + j: of each block of 32 a lane has 4 in a row; of a half block, 2. */
static HOST_DEVICE inline uint32_t fragment_value_dim(uint32_t n_steps, uint32_t step, uint32_t g, uint32_t r) {
    return step == (n_steps & ~1u) ? 16 * step + 2 * g + r : 32 * (step / 2) + 4 * g + 2 * (step % 2) + r;
}

static HOST_DEVICE inline FragmentPlace fragment_place_key(uint32_t n_steps, uint32_t token, uint32_t dim) {
    uint32_t in_half = dim / 32 == n_steps / 2; /* the last half block */
    uint32_t step = in_half ? n_steps - 1 : dim / 32 * 2 + dim % 8 / 4, j = in_half ? dim % 16 / 4 : dim % 32 / 8;
    FragmentPlace place = {token / 32, token % 8 * 4 + j, fragment_quad(n_steps, token / 16 % 2, step, token / 8 % 2),
                           dim % 4};
    return place;
}

static HOST_DEVICE inline FragmentPlace fragment_place_value(uint32_t n_steps, uint32_t token, uint32_t dim) {
    uint32_t in_half = dim / 32 == n_steps / 2;
    uint32_t step = in_half ? n_steps - 1 : dim / 32 * 2 + dim % 4 / 2, g = in_half ? dim % 16 / 2 : dim % 32 / 4;
    FragmentPlace place = {token / 32, g * 4 + token % 8 / 2, fragment_quad(n_steps, token / 16 % 2, step, dim % 2),
                           token % 2 + token / 8 % 2 * 2};
    return place;
}

/* The token and the element of code `byte` of a quad: the inverse. */
static HOST_DEVICE inline uint32_t fragment_token(KvSide side, uint32_t n_steps, uint32_t strip, uint32_t lane,
                                                  uint32_t quad, uint32_t byte) {
    uint32_t first = strip * 32 + quad / (2 * n_steps) * 16;
    return side == KV_KEYS ? first + quad % 2 * 8 + lane / 4 : first + lane % 4 * 2 + byte % 2 + byte / 2 * 8;
}

static HOST_DEVICE inline uint32_t fragment_dim(KvSide side, uint32_t n_steps, uint32_t lane, uint32_t quad,
                                                uint32_t byte) {
    uint32_t step = quad / 2 % n_steps;
    return side == KV_KEYS ? fragment_key_dim(n_steps, step, lane % 4, byte)
                           : fragment_value_dim(n_steps, step, lane / 4, quad % 2);
}

/* Words of a lane in a strip, for a plane of `bits` bits. */
static HOST_DEVICE inline uint32_t fragment_words(uint32_t n_steps, uint32_t bits) {
    return (fragment_quads(n_steps) * bits + 7) / 8;
}

static HOST_DEVICE inline uint32_t fragment_plane_bytes(uint32_t n_steps, uint32_t bits) {
    return fragment_words(n_steps, bits) * FRAGMENT_LANES * 4;
}

/* Offset in bytes of a lane's word in its plane of a strip. */
static HOST_DEVICE inline uint32_t fragment_word_at(uint32_t n_words, uint32_t word, uint32_t lane) {
    uint32_t fours = n_words / 4 * 4, behind = fours * FRAGMENT_LANES * 4;
    if (word < fours)
        return word / 4 * FRAGMENT_LANES * 16 + lane * 16 + word % 4 * 4;
    if (n_words % 4 >= 2 && word - fours < 2)
        return behind + lane * 8 + (word - fours) * 4;
    return behind + (n_words % 4 >= 2 ? FRAGMENT_LANES * 8 : 0) + lane * 4;
}

/* The plane that begins at bit `shift` of codes of `bits` bits: its width. */
static HOST_DEVICE inline uint32_t fragment_plane(uint32_t bits, uint32_t shift) {
    uint32_t left = bits - shift;
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static HOST_DEVICE inline FragmentPlace fragment_place(const FragmentShape *shape, uint32_t token, uint32_t dim) {
    return shape->side == KV_KEYS ? fragment_place_key(shape->n_steps, token, dim)
                                  : fragment_place_value(shape->n_steps, token, dim);
}

static HOST_DEVICE inline uint32_t fragment_code(const FragmentShape *shape, const uint8_t *record, uint32_t token,
                                                 uint32_t dim) {
    FragmentPlace place = fragment_place(shape, token, dim);
    const uint8_t *plane_at = record + place.strip * shape->strip_bytes;
    uint32_t code = 0;
    for (uint32_t shift = 0, plane, bits = (uint32_t)shape->bits; shift < bits; shift += plane) {
        plane = fragment_plane(bits, shift);
        uint32_t n_words = fragment_words(shape->n_steps, plane), per_word = 8 / plane;
        uint32_t at = fragment_word_at(n_words, place.quad / per_word, place.lane) + place.byte;
        code |= (plane_at[at] >> place.quad % per_word * plane & ((1u << plane) - 1)) << shift;
        plane_at += fragment_plane_bytes(shape->n_steps, plane);
    }
    return code;
}

/* Index among a record's scales (or minima). */
static HOST_DEVICE inline uint32_t fragment_scale_index(const FragmentShape *shape, uint32_t token, uint32_t dim) {
    if (shape->by_channel)
        return dim;
    return dim / shape->block * shape->n_tokens + token / 32 * 32 + token % 8 * 4 + token % 32 / 8;
}

#endif
