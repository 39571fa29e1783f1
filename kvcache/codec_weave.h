/* Woven records: how the cache keeps what integer products read. A codec's record has row after row; woven, the same
 * bytes stand so that a vector load has what an instruction multiplies: four codes in each of 16 words.
 *
 *     scales, minima  as in the record where they are by channel; else (n_blocks, n_tokens), a half each
 *     codes of keys   (n_tokens / 16, head_dim / 32, 8, 16) words of four neighbouring elements
 *     of values       (n_tokens / 4, head_dim / 32, 32) words of four neighbouring tokens
 *
 * with the first element or token in the lowest byte. Codes of 4 bits share words: (…, 4, 16) and (…, 16), with those
 * of the block's first 16 elements in the low half of each byte, the others in the high half. Two's complement becomes
 * unsigned: every form is element = minimum + scale * (code - bias). */
#ifndef STOWKV_CODEC_WEAVE_H
#define STOWKV_CODEC_WEAVE_H

#include "kvcache/codec_format.h"

#define KV_WOVEN_BLOCK 32 /* elements */

typedef struct KvWoven {
    size_t bits; /* 8 or 4 */
    int bias;
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
