/* The plain form, and decoding from any; see record_form.h. */
#include "kvcache/codec/record_form.h"

#include <string.h>

static size_t plain_bytes(KvCodecId id, KvSide side, const KvGroup *group) {
    return kv_codec_bytes(kv_codec(id), side, group);
}

static void plain_copy(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *from, uint8_t *to) {
    memcpy(to, from, plain_bytes(id, side, group));
}

const KvRecordForm KV_PLAIN_RECORDS = {plain_bytes, plain_copy, plain_copy, false, false};

void kv_stored_decode(const KvRecordForm *form, KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *stored,
                      uint8_t *scratch, float *out) {
    form->load(id, side, group, stored, scratch);
    kv_codec_decoder(kv_codec(id), SIMD_SCALAR)(side, group, scratch, 0, group->n_tokens, out);
}
