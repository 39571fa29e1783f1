/* Codecs: how a group of tokens of one KV head is encoded in fewer bits. A codec is a row of one table (table.h);
 * nothing else in the program knows what a codec does.
 *
 *     const KvCodec *codec = kv_codec_named(sv("int8"));
 *     KvGroup group = {.n_tokens = 64, .head_dim = 128, .block = 64, .rotated = false};
 *     if (kv_codec_check(codec, &group, &error) < 0) …
 *     uint8_t *record = malloc(kv_codec_bytes(codec, KV_KEYS, &group));
 *     kv_codec_encode(codec, SIMD_AVX2, KV_KEYS, &group, values, scratch, record);     // values: (n_tokens, head_dim)
 *     kv_codec_decoder(codec, SIMD_AVX2)(KV_KEYS, &group, record, 0, 64, out);         // tokens 0 to 63 of the group
 *
 * Decoding a single token or a range gives the same bits as decoding all, on every instruction set.
 * A NaN or an infinity decodes to NaN, and so does all that shares its scale. */
#ifndef STOWKV_CODEC_H
#define STOWKV_CODEC_H

#include "base/error.h"
#include "base/simd/levels.h"
#include "base/string_view.h"
#include "kvcache/codec/group.h"

typedef struct KvCodec KvCodec;

const KvCodec *kv_codec(KvCodecId id);
const KvCodec *kv_codec_named(StringView name); /* NULL where there is none */
const char *const *kv_codec_names(void);        /* NULL-terminated, for suggestions */

KvCodecId kv_codec_id(const KvCodec *codec);
const char *kv_codec_name(const KvCodec *codec);
const char *kv_codec_purpose(const KvCodec *codec); /* what it is good for, a few words */
int kv_codec_nominal_bits(const KvCodec *codec);    /* of a code: 16, or 1 to 8 */

/* Whether the codec can encode groups of this shape; the message says what it needs. */
int kv_codec_check(const KvCodec *codec, const KvGroup *group, Error *error);

/* What the elements of its rows come in multiples of: a power of two, at most 64. */
size_t kv_codec_row_multiple(const KvCodec *codec, const KvGroup *group);

/* Fills rows that are longer than a head, before they are encoded and rotated, with what changes none of the head's
 * scales and minima. What such elements decode to means nothing. */
void kv_codec_pad(const KvCodec *codec, const KvGroup *group, size_t head_dim,
                  float *values); // (n_tokens, group->head_dim), of which elements from head_dim on are written

/* Bytes of one encoded group of one side, scales counted. */
size_t kv_codec_bytes(const KvCodec *codec, KvSide side, const KvGroup *group);

/* Bits per element, scales counted, mean of K and V. */
double kv_codec_bits(const KvCodec *codec_k, const KvCodec *codec_v, const KvGroup *group);

/* Encodes a group of one side; every level gives the same bits. */
void kv_codec_encode(const KvCodec *codec, SimdLevel level, KvSide side, const KvGroup *group,
                     const float *values, // (n_tokens, head_dim); not rotated yet
                     float *scratch,      // (n_tokens, head_dim); NULL where not group->rotated
                     uint8_t *record);    // (kv_codec_bytes)

/* Whether keys can be rounded with an eye to the queries: codecs of a linear code with scales by channel. */
bool kv_codec_rounds_aware(const KvCodec *codec);

/* Encodes a group of keys, rotated already where they are to be, channel after channel: each one is corrected for the
 * errors of those before it, so that scores lose little of what queries look at (query_moments.h; the method is that of
 * Frantar et al. 2022, GPTQ, and Chee et al. 2023, LDLQ, which round weights with the moments of a calibration text).
 * Corrected channels are fitted where kv_codec_is_fitted(). The record is one of kv_codec_encode(); with a factor of
 * zeros, where nothing is fitted, the same bits. Of codecs that kv_codec_rounds_aware(). Every level gives the same
 * bits. */
void kv_codec_encode_aware(const KvCodec *codec, SimdLevel level, const KvGroup *group,
                           const float *factor, // (head_dim, head_dim) kv_moments_factor()
                           const float *values, // (n_tokens, head_dim)
                           float *scratch,      // (kv_aware_floats())
                           uint8_t *record);    // (kv_codec_bytes)

/* Floats of scratch memory for it: errors, and codes in bytes. */
static inline size_t kv_aware_floats(const KvGroup *group) {
    return group->n_tokens * group->head_dim * 5 / 4;
}

/* Whether a side's scales and minima are fitted to its numbers (fit_values.h) by the encoders for attention: a linear
 * code with a minimum, of two bits at most for keys and three for values. */
bool kv_codec_is_fitted(const KvCodec *codec, KvSide side);

/* Encodes a group of values, rotated already where they are to be, so that what attention adds up of them is right
 * (fit_values.h), where kv_codec_encode() has each number off by as little as can be promised. The record is one of
 * kv_codec_encode(). Of codecs that kv_codec_is_fitted(). Every level gives the same bits. */
void kv_codec_encode_fitted(const KvCodec *codec, SimdLevel level, const KvGroup *group,
                            const float *values, // (n_tokens, head_dim)
                            uint8_t *record);    // (kv_codec_bytes)

KvDecode *kv_codec_decoder(const KvCodec *codec, SimdLevel level);

/* The orthonormal Walsh-Hadamard transform of rows (n_rows, n), in place; its own inverse. n must be a power of two. */
void kv_rotate(float *rows, size_t n_rows, size_t n);

#endif
