/* The form in which a backend stores records. A codec writes the record of a group as format.h says, token after token;
 * the attention of a backend may want the same bits in another order, or padding between them. The backend passes its
 * form to kvcache_open(), and all who read or write stored records go through it. */
#ifndef STOWKV_CODEC_RECORD_FORM_H
#define STOWKV_CODEC_RECORD_FORM_H

#include "kvcache/codec/codec.h"

typedef struct KvRecordForm {
    /* Bytes of a stored record; the next one follows it without a gap. */
    size_t (*stored_bytes)(KvCodecId id, KvSide side, const KvGroup *group);

    /* From the codec's record to the stored one, and back to the same bits. The two do not overlap. */
    void (*store)(KvCodecId id, KvSide side, const KvGroup *group,
                  const uint8_t *record, // (kv_codec_bytes)
                  uint8_t *stored);      // (stored_bytes)
    void (*load)(KvCodecId id, KvSide side, const KvGroup *group,
                 const uint8_t *stored, // (stored_bytes)
                 uint8_t *record);      // (kv_codec_bytes)

    bool takes_queries; /* whether the backend's encoders get the queries, so that keys can be rounded with them */
    bool fits_values;   /* whether they fit values (kv_codec_encode_fitted()) */
} KvRecordForm;

/* Records as codecs write them. */
extern const KvRecordForm KV_PLAIN_RECORDS;

/* Decodes a stored group; `out` is still rotated where group->rotated. */
void kv_stored_decode(const KvRecordForm *form, KvCodecId id, KvSide side, const KvGroup *group,
                      const uint8_t *stored, // (stored_bytes)
                      uint8_t *scratch,      // (kv_codec_bytes) becomes the codec's record
                      float *out);           // (n_tokens, head_dim)

#endif
