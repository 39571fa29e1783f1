/* Woven records: how the cache keeps what integer products read. A codec's record has row after row; woven, the same
 * bits stand so that a vector load has what an instruction multiplies: four codes in each of 16 words.
 *
 *     scales, minima  as in the record where they are by channel; else (n_blocks, n_tokens), a half each
 *     codes           (n_tokens / 16, head_dim / 32) tiles, of 8 vectors of 16 words of four codes:
 *                     of keys    word t of vector v has elements 4 v to 4 v + 3 of token t
 *                     of values  word i of vector v has element i + v % 2 * 16 of tokens v / 2 * 4 to v / 2 * 4 + 3
 *
 * with the first element or token in the lowest byte. A code of n < 8 bits leaves room in its byte: a tile has n
 * vectors then, and vector v is in bits [s, s + n) of vector v % n, where s = v / n * n. Codes of 5 bits are a tile of
 * their 4 low bits and, behind it, one of their fifth.
 *
 * Two's complement becomes unsigned, and a sign a bit that is 1 for +: every form is
 * element = minimum + scale * (factor * code - bias). */
#ifndef STOWKV_CODEC_WEAVE_H
#define STOWKV_CODEC_WEAVE_H

#include "kvcache/codec/format.h"

#define KV_WOVEN_BLOCK  32 /* elements */
#define KV_WOVEN_TOKENS 16

/* Bytes of a tile of codes. */
#define KV_WOVEN_TILE(bits) ((size_t)64 * (bits))

/* Bits of a code in the vectors in front: the fifth is behind them. Kernels unroll loops over it only where it is
 * inlined whatever GCC thinks of that. */
static inline __attribute__((always_inline)) size_t kv_woven_low_bits(size_t bits) {
    return bits == 5 ? 4 : bits;
}

typedef struct KvWoven {
    size_t bits;      /* 8, 5, 4, 2 or 1 */
    int bias, factor; /* factor: 1 or 2 */
    bool has_minima, by_channel;
    size_t block, n_blocks; /* elements of a row that share a scale, and such blocks in a row, where not by_channel */
    size_t minima, codes;   /* offsets; scales are at 0 */
} KvWoven;

/* Whether the cache weaves a codec's records. */
bool kv_is_woven(KvCodecId id, size_t head_dim);

/* For those alone. */
KvWoven kv_woven(KvCodecId id, KvSide side, const KvGroup *group);

/* In place; `room` has the size of the record. Nothing is done where records stay as they are. */
void kv_weave(KvCodecId id, KvSide side, const KvGroup *group, uint8_t *record, uint8_t *room);

/* The codec's record, whether it was woven or not. */
void kv_unweave(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *woven, uint8_t *record);

/* A group as the cache keeps it, decoded: still rotated where group->rotated. */
void kv_decode_kept(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *kept,
                    uint8_t *room, /* of the record's size */
                    float *out);   /* (n_tokens, head_dim) */

#endif
