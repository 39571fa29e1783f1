/* The host's side of fragment records: their shapes, and their conversion from and to the codecs' own records, which
 * tests and evaluators use; on a device cuda/cache.cu writes them. */
#include "cuda/fragments.h"

#include "base/checked.h"
#include "kvcache/codec/encode.h"
#include "kvcache/codec/fp8.h"
#include "kvcache/codec/half.h"

/* In the scale part of nf4 the constants stand before the codes. */
static size_t scale_part_bytes(const FragmentShape *shape) {
    size_t n_scales = shape->by_channel ? shape->head_dim : (size_t)shape->n_tokens * shape->n_blocks;
    return shape->kind == KV_CODE_NF4 ? FRAGMENT_NF4_AT + n_scales : n_scales * sizeof(uint16_t);
}

static void set_codes(FragmentShape *shape, const KvFormat *format) {
    shape->bits = format->bits;
    shape->factor = 1;
    switch (format->kind) {
    case KV_CODE_SIGNED:
        shape->bias = 128;
        break;
    case KV_CODE_OFFSET:
        shape->bias = 1 << (format->bits - 1);
        break;
    case KV_CODE_SIGN:
        shape->factor = 2;
        shape->bias = 1;
        break;
    case KV_CODE_HALF:
    case KV_CODE_UNSIGNED:
    case KV_CODE_E4M3:
    case KV_CODE_NF4:
        break;
    }
}

FragmentShape fragment_shape(KvCodecId id, KvSide side, const KvGroup *group) {
    const KvFormat *format = &KV_FORMATS[id];
    KvRecordLayout layout = kv_record_layout(format, side, group);
    FragmentShape shape = {.kind = format->kind,
                           .side = side,
                           .is_ggml = format->type != KV_SCALED,
                           .by_channel = layout.by_channel,
                           .has_minima = format->kind == KV_CODE_UNSIGNED,
                           .rotated = group->rotated,
                           .n_tokens = (uint32_t)group->n_tokens,
                           .head_dim = (uint32_t)group->head_dim,
                           .n_steps = (uint32_t)divide_up(group->head_dim, FRAGMENT_STEP),
                           .block = (uint32_t)layout.block,
                           .n_blocks = (uint32_t)layout.blocks_per_row};
    set_codes(&shape, format);
    if (format->kind == KV_CODE_HALF) { /* rows, as in the sink and the first tier */
        shape.record_bytes = (uint32_t)layout.size_bytes;
        return shape;
    }
    for (uint32_t shift = 0, plane, bits = (uint32_t)shape.bits; shift < bits; shift += plane) {
        plane = fragment_plane(bits, shift);
        shape.strip_bytes += fragment_plane_bytes(shape.n_steps, plane);
    }
    size_t part = round_up(scale_part_bytes(&shape), FRAGMENT_ALIGN);
    shape.scales = shape.n_tokens / FRAGMENT_STRIP * shape.strip_bytes;
    shape.minima = shape.scales + (uint32_t)part;
    shape.record_bytes = shape.minima + (shape.has_minima ? (uint32_t)part : 0);
    return shape;
}

/* ---- Codes of a stored record */

/* Adds a code's bits to those of a zeroed record. */
static void put_code(const FragmentShape *shape, uint8_t *stored, FragmentPlace place, uint32_t code) {
    uint8_t *plane_at = stored + place.strip * shape->strip_bytes;
    for (uint32_t shift = 0, plane, bits = (uint32_t)shape->bits; shift < bits; shift += plane) {
        plane = fragment_plane(bits, shift);
        uint32_t n_words = fragment_words(shape->n_steps, plane), per_word = 8 / plane;
        uint32_t at = fragment_word_at(n_words, place.quad / per_word, place.lane) + place.byte;
        plane_at[at] |= (uint8_t)((code >> shift & ((1u << plane) - 1)) << place.quad % per_word * plane);
        plane_at += fragment_plane_bytes(shape->n_steps, plane);
    }
}

/* Codes in records and fragments differ by one bit at most: two's complement against an offset, the meaning of a sign.
 */
static uint32_t turned(const FragmentShape *shape, uint32_t code) {
    return shape->kind == KV_CODE_SIGNED ? code ^ 0x80 : shape->kind == KV_CODE_SIGN ? code ^ 1 : code;
}

/* ---- The codecs' records, token after token */

/* The codes of block `index` of a token, of head_dim elements or of a GGML block. */
typedef struct CodecRow {
    const KvFormat *format;
    KvRecordLayout layout;
    size_t head_dim;
} CodecRow;

static size_t row_scales(const CodecRow *row) {
    const TensorTypeInfo *info = tensor_type_info(row->format->type);
    return row->format->type == KV_SCALED ? 0 : row->head_dim / info->block_elements;
}

static size_t ggml_header(const KvFormat *format) {
    return format->kind == KV_CODE_UNSIGNED ? 4 : 2; /* scale, and a minimum */
}

static void load_row(const CodecRow *row, const uint8_t *record, size_t token, uint8_t *codes) {
    const uint8_t *from = record + row->layout.codes + token * row->layout.token_bytes;
    if (row->format->type == KV_SCALED) {
        unpack_codes(from, row->head_dim, row->format->bits, codes);
        return;
    }
    size_t block_bytes = tensor_type_info(row->format->type)->block_bytes, header = ggml_header(row->format);
    for (size_t b = 0; b < row_scales(row); b++, from += block_bytes, codes += 32)
        if (row->format->bits == 8)
            memcpy(codes, from + header, 32);
        else
            unpack_block(from + header, row->format->bits, codes);
}

static void store_row(const CodecRow *row, const uint8_t *codes, size_t token, uint8_t *record) {
    uint8_t *to = record + row->layout.codes + token * row->layout.token_bytes;
    if (row->format->type == KV_SCALED) {
        pack_codes(codes, row->head_dim, row->format->bits, to);
        return;
    }
    size_t block_bytes = tensor_type_info(row->format->type)->block_bytes, header = ggml_header(row->format);
    for (size_t b = 0; b < row_scales(row); b++, to += block_bytes, codes += 32)
        if (row->format->bits == 8)
            memcpy(to + header, codes, 32);
        else
            pack_block(codes, row->format->bits, to + header);
}

/* Where a codec's record has scale (or, if `minimum`, minimum) number `index` of a token or of all channels. */
static size_t codec_scale_at(const CodecRow *row, size_t token, size_t index, bool minimum) {
    if (row->format->type != KV_SCALED)
        return token * row->layout.token_bytes + index * tensor_type_info(row->format->type)->block_bytes +
               (minimum ? 2 : 0);
    size_t n = row->layout.by_channel ? index : token * row->layout.blocks_per_row + index;
    if (row->format->kind == KV_CODE_NF4)
        return KV_NF4_SCALES + n;
    return (minimum ? row->layout.minima : 0) + n * sizeof(uint16_t);
}

/* Copies all scales and minima, in either direction. */
static void copy_scales(const FragmentShape *shape, const CodecRow *row, const uint8_t *from, uint8_t *to,
                        bool to_fragments) {
    bool nf4 = shape->kind == KV_CODE_NF4;
    size_t size = nf4 ? 1 : sizeof(uint16_t), behind = nf4 ? FRAGMENT_NF4_AT : 0;
    size_t n_tokens = shape->by_channel ? 1 : shape->n_tokens;
    size_t n = shape->by_channel ? shape->head_dim : shape->n_blocks, step = shape->by_channel ? 1 : shape->block;
    for (size_t token = 0; token < n_tokens; token++)
        for (size_t i = 0; i < n; i++) {
            size_t index = fragment_scale_index(shape, (uint32_t)token, (uint32_t)(i * step));
            for (int minimum = 0; minimum <= shape->has_minima; minimum++) {
                size_t ours = (minimum ? shape->minima : shape->scales) + behind + index * size;
                size_t theirs = codec_scale_at(row, token, i, minimum);
                memcpy(to + (to_fragments ? ours : theirs), from + (to_fragments ? theirs : ours), size);
            }
        }
    if (nf4) /* the constants, 4 bytes */
        memcpy(to + (to_fragments ? shape->scales : 0), from + (to_fragments ? 0 : shape->scales), KV_NF4_SCALES);
}

/* ---- The form */

enum { MAX_HEAD_DIM = 4096 }; /* of a row on the stack */

static CodecRow codec_row(KvCodecId id, KvSide side, const KvGroup *group) {
    return (CodecRow){&KV_FORMATS[id], kv_record_layout(&KV_FORMATS[id], side, group), group->head_dim};
}

static size_t stored_bytes(KvCodecId id, KvSide side, const KvGroup *group) {
    return fragment_shape(id, side, group).record_bytes;
}

static void store(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, uint8_t *stored) {
    FragmentShape shape = fragment_shape(id, side, group);
    CodecRow row = codec_row(id, side, group);
    uint8_t codes[MAX_HEAD_DIM];
    if (shape.kind == KV_CODE_HALF) {
        memcpy(stored, record, shape.record_bytes);
        return;
    }
    memset(stored, 0, shape.record_bytes);
    for (uint32_t token = 0; token < shape.n_tokens; token++) {
        load_row(&row, record, token, codes);
        for (uint32_t dim = 0; dim < shape.head_dim; dim++)
            put_code(&shape, stored, fragment_place(&shape, token, dim), turned(&shape, codes[dim]));
    }
    copy_scales(&shape, &row, record, stored, true);
}

static void load(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *stored, uint8_t *record) {
    FragmentShape shape = fragment_shape(id, side, group);
    CodecRow row = codec_row(id, side, group);
    uint8_t codes[MAX_HEAD_DIM];
    if (shape.kind == KV_CODE_HALF) {
        memcpy(record, stored, shape.record_bytes);
        return;
    }
    for (uint32_t token = 0; token < shape.n_tokens; token++) {
        for (uint32_t dim = 0; dim < shape.head_dim; dim++)
            codes[dim] = (uint8_t)turned(&shape, fragment_code(&shape, stored, token, dim));
        store_row(&row, codes, token, record);
    }
    copy_scales(&shape, &row, stored, record, false);
}

const KvRecordForm KV_FRAGMENT_RECORDS = {stored_bytes, store, load, false, false};
