/* Weaving: what both directions move is described once; see weave.h. */
#include "kvcache/codec/weave.h"

#include "base/block_codes.h"
#include "kvcache/codec/encode.h"

#define TOKENS KV_WOVEN_TOKENS
#define BLOCK  KV_WOVEN_BLOCK

bool kv_is_woven(KvCodecId id, size_t head_dim) {
    return KV_IS_LINEAR(KV_FORMATS[id].kind) && head_dim % BLOCK == 0;
}

KvWoven kv_woven(KvCodecId id, KvSide side, const KvGroup *group) {
    const KvFormat *format = &KV_FORMATS[id];
    KvRecordLayout layout = kv_record_layout(format, side, group);
    bool centred = format->kind == KV_CODE_SIGNED || format->kind == KV_CODE_OFFSET;
    KvWoven woven = {.bits = (size_t)format->bits,
                     .bias = centred                        ? 1 << (format->bits - 1)
                             : format->kind == KV_CODE_SIGN ? 1 /* 2 * 1 - 1 or 2 * 0 - 1 */
                                                            : 0,
                     .factor = format->kind == KV_CODE_SIGN ? 2 : 1,
                     .has_minima = format->kind == KV_CODE_UNSIGNED,
                     .by_channel = layout.by_channel,
                     .block = layout.block,
                     .n_blocks = layout.blocks_per_row,
                     .minima = layout.minima,
                     .codes = layout.codes};
    if (format->type != KV_SCALED) { /* scales are taken out of GGML's blocks */
        woven.minima = woven.n_blocks * group->n_tokens * sizeof(uint16_t);
        woven.codes = woven.minima * (woven.has_minima ? 2 : 1);
    }
    return woven;
}

/* A record as rows and woven, and which of them is to be written. */
typedef struct Weave {
    const KvFormat *format;
    KvWoven woven;
    KvRecordLayout layout;
    const KvGroup *group;
    bool keys, to_rows;
    uint8_t flip;      /* bits of a code that are inverted */
    size_t ggml_bytes; /* of a block of GGML's, which begins with scale and minimum; 0: the record is scaled */
    size_t ggml_codes; /* where codes are in it, fifth bits in front */
    uint8_t *rows, *stored;
} Weave;

static Weave weave_of(KvCodecId id, KvSide side, const KvGroup *group) {
    const KvFormat *format = &KV_FORMATS[id];
    Weave weave = {.format = format,
                   .woven = kv_woven(id, side, group),
                   .layout = kv_record_layout(format, side, group),
                   .group = group,
                   .keys = side == KV_KEYS};
    if (format->kind == KV_CODE_SIGNED || format->kind == KV_CODE_SIGN)
        weave.flip = (uint8_t)(1 << (format->bits - 1));
    if (format->type != KV_SCALED) {
        weave.ggml_bytes = tensor_type_info(format->type)->block_bytes;
        weave.ggml_codes = (weave.woven.has_minima ? 2 : 1) * sizeof(uint16_t);
    }
    return weave;
}

/* ---- Scales */

static void move(const Weave *w, uint8_t *row, uint8_t *stored, size_t n) {
    if (w->to_rows)
        memcpy(row, stored, n);
    else
        memcpy(stored, row, n);
}

/* Moves all scales (index 0) or minima (index 1): in GGML's blocks the half number `index`, else from `offset` on. */
static void move_scales(const Weave *w, size_t index, size_t offset, size_t woven_offset) {
    size_t n_tokens = w->group->n_tokens, half = sizeof(uint16_t);
    if (w->woven.by_channel) {
        move(w, w->rows + offset, w->stored + woven_offset, w->group->head_dim * half);
        return;
    }
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t b = 0; b < w->woven.n_blocks; b++) {
            size_t at = w->ggml_bytes > 0 ? t * w->layout.token_bytes + b * w->ggml_bytes + index * half
                                          : offset + (t * w->woven.n_blocks + b) * half;
            move(w, w->rows + at, w->stored + woven_offset + (b * n_tokens + t) * half, half);
        }
}

/* ---- Codes */

/* A block of a token in the codec's record: GGML's block, or the codes alone. */
static uint8_t *block_of(const Weave *w, size_t token, size_t block) {
    size_t bytes = w->ggml_bytes > 0 ? w->ggml_bytes : BLOCK * w->woven.bits / 8;
    return w->rows + w->layout.codes + token * w->layout.token_bytes + block * bytes;
}

static void load_row(const Weave *w, const uint8_t *from, uint8_t codes[BLOCK]) {
    size_t bits = w->woven.bits;
    from += w->ggml_codes;
    if (bits == 8)
        memcpy(codes, from, BLOCK);
    else if (w->ggml_bytes == 0)
        unpack_codes(from, BLOCK, (int)bits, codes);
    else
        unpack_block(from, (int)bits, codes);
    for (size_t i = 0; i < BLOCK; i++)
        codes[i] ^= w->flip;
}

static void store_row(const Weave *w, const uint8_t codes[BLOCK], uint8_t *to) {
    uint8_t flipped[BLOCK];
    for (size_t i = 0; i < BLOCK; i++)
        flipped[i] = codes[i] ^ w->flip;
    to += w->ggml_codes;
    if (w->woven.bits == 8)
        memcpy(to, flipped, BLOCK);
    else if (w->ggml_bytes == 0)
        pack_codes(flipped, BLOCK, (int)w->woven.bits, to);
    else
        pack_block(flipped, (int)w->woven.bits, to);
}

/* Codes of 16 tokens by 32 elements as lanes have them. */
static uint8_t *lane_code(bool keys, uint8_t (*lanes)[LANE_CODES], size_t token, size_t element) {
    return keys ? &lanes[token][element] : &lanes[element % 16][token / 4 * 8 + element / 16 * 4 + token % 4];
}

static uint8_t *pack_of(const Weave *w, size_t pack, size_t block) {
    size_t n_blocks = w->group->head_dim / BLOCK;
    return w->stored + w->woven.codes + (pack * n_blocks + block) * planes_bytes(w->woven.bits);
}

static void weave_pack(const Weave *w, size_t pack, size_t block) {
    uint8_t lanes[PLANE_LANES][LANE_CODES], codes[BLOCK];
    for (size_t t = 0; t < TOKENS; t++) {
        load_row(w, block_of(w, pack * TOKENS + t, block), codes);
        for (size_t i = 0; i < BLOCK; i++)
            *lane_code(w->keys, lanes, t, i) = codes[i];
    }
    for (size_t lane = 0; lane < PLANE_LANES; lane++)
        planes_put(w->woven.bits, lanes[lane], lane, pack_of(w, pack, block));
}

static void unweave_pack(const Weave *w, size_t pack, size_t block) {
    uint8_t lanes[PLANE_LANES][LANE_CODES], codes[BLOCK];
    for (size_t lane = 0; lane < PLANE_LANES; lane++)
        planes_get(w->woven.bits, pack_of(w, pack, block), lane, lanes[lane]);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < BLOCK; i++)
            codes[i] = *lane_code(w->keys, lanes, t, i);
        store_row(w, codes, block_of(w, pack * TOKENS + t, block));
    }
}

static void move_all(const Weave *w) {
    move_scales(w, 0, 0, 0);
    if (w->woven.has_minima)
        move_scales(w, 1, w->layout.minima, w->woven.minima);
    for (size_t pack = 0; pack < w->group->n_tokens / TOKENS; pack++)
        for (size_t block = 0; block < w->group->head_dim / BLOCK; block++)
            if (w->to_rows)
                unweave_pack(w, pack, block);
            else
                weave_pack(w, pack, block);
}

static size_t woven_bytes(KvCodecId id, KvSide side, const KvGroup *group) {
    return kv_codec_bytes(kv_codec(id), side, group);
}

/* Writes all of `to`: the codec's record, or the woven one. */
static void convert(KvCodecId id, KvSide side, const KvGroup *group, bool to_rows, const uint8_t *from, uint8_t *to) {
    Weave weave = weave_of(id, side, group);
    weave.to_rows = to_rows;
    weave.rows = to_rows ? to : (uint8_t *)from; /* `from` is only read from */
    weave.stored = to_rows ? (uint8_t *)from : to;
    if (kv_is_woven(id, group->head_dim))
        move_all(&weave);
    else
        memcpy(to, from, weave.layout.size_bytes);
}

static void weave(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *record, uint8_t *woven) {
    convert(id, side, group, false, record, woven);
}

static void unweave(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *woven, uint8_t *record) {
    convert(id, side, group, true, woven, record);
}

const KvRecordForm KV_WOVEN_RECORDS = {woven_bytes, weave, unweave, true, true};
