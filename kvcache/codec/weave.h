/* Woven records: the form of records that integer products on a CPU read (record_form.h). A codec's record has token
 * after token; in a woven one the same bits are in the order in which an instruction multiplies what a load gives it.
 *
 *     scales, minima  as in the record where they are by channel; else (n_blocks, n_tokens), a half each
 *     codes           (n_tokens / 16, head_dim / 32) packs of bit planes (base/bit_planes.h):
 *                     of keys    lane t has the 32 elements of token t
 *                     of values  lane i has elements i and i + 16 of all 16 tokens: step s has element
 *                                i + s % 2 * 16 of tokens s / 2 * 4 to s / 2 * 4 + 3
 *
 * Two's complement becomes unsigned, and a sign a bit that is 1 for +: every form is
 * element = minimum + scale * (factor * code - bias). */
#ifndef STOWKV_CODEC_WEAVE_H
#define STOWKV_CODEC_WEAVE_H

#include "base/bit_planes.h"
#include "kvcache/codec/format.h"
#include "kvcache/codec/record_form.h"

#define KV_WOVEN_BLOCK  LANE_CODES /* elements */
#define KV_WOVEN_TOKENS PLANE_LANES

typedef struct KvWoven {
    size_t bits;      /* 1 to 8 */
    int bias, factor; /* factor: 1 or 2 */
    bool has_minima, by_channel;
    size_t block, n_blocks; /* elements of a row that share a scale, and such blocks in a row, where not by_channel */
    size_t minima, codes;   /* offsets; scales are at 0 */
} KvWoven;

/* The widths that the table's codecs have. A kernel that none of them needs is not compiled.
 *
 *     KV_HAS_KEYS(bits, by_channel)   whether a woven codec has keys of this width, with scales by channel or by token
 *     KV_HAS_VALUES(bits)             whether a woven codec has this width
 *
 * Constants, for widths from 1 to 8. */
#define KV_WIDTH_BIT(bits, by_channel) (1u << (((bits)-1) % 8 + ((by_channel) ? 8 : 0)))
#define KV_WIDTHS_OF(id, name, kind, bits, keys, block, layout, purpose)                                               \
    | (KV_IS_LINEAR(kind) ? KV_WIDTH_BIT(bits, keys) : 0)
enum { KV_WOVEN_WIDTHS = 0 KV_CODECS(KV_WIDTHS_OF) };
#undef KV_WIDTHS_OF
#define KV_HAS_KEYS(bits, by_channel) ((KV_WOVEN_WIDTHS & KV_WIDTH_BIT(bits, by_channel)) != 0)
#define KV_HAS_VALUES(bits)           (KV_HAS_KEYS(bits, true) || KV_HAS_KEYS(bits, false))

/* Calls DO with every width from 8 to 1. */
#define KV_WIDTHS(DO) DO(8) DO(7) DO(6) DO(5) DO(4) DO(3) DO(2) DO(1)

/* Whether a codec's records are woven; others stay as they are. */
bool kv_is_woven(KvCodecId id, size_t head_dim);

/* How the records of a woven codec are laid out. */
KvWoven kv_woven(KvCodecId id, KvSide side, const KvGroup *group);

/* Its records have the size of the codec's; those of codecs that are not woven are the codec's. */
extern const KvRecordForm KV_WOVEN_RECORDS;

#endif
