/* Weaving: both directions move the same pieces; see codec_weave.h. */
#include "kvcache/codec_weave.h"

/* How a codec's rows hold what is woven. */
typedef struct RowCodes {
    size_t bits;
    int bias; /* 128 turns two's complement into it: its highest bit is turned over */
    bool has_minima;
    size_t block_bytes, codes_at; /* GGML's blocks: their bytes, and where codes begin; 0: as codec_format.h has them */
} RowCodes;

static const RowCodes ROW_CODES[KV_CODEC_COUNT] = {
    [KV_INT8] = {.bits = 8, .bias = 128},
    [KV_INT8G] = {.bits = 8, .has_minima = true},
    [KV_Q8_0] = {.bits = 8, .bias = 128, .block_bytes = 34, .codes_at = 2},
    [KV_INT4] = {.bits = 4, .has_minima = true},
    [KV_Q4_1] = {.bits = 4, .has_minima = true, .block_bytes = 20, .codes_at = 4},
    [KV_Q4_0] = {.bits = 4, .bias = 8, .block_bytes = 18, .codes_at = 2},
};

bool kv_is_woven(KvCodecId id, size_t head_dim) {
    return ROW_CODES[id].bits > 0 && head_dim % KV_WOVEN_BLOCK == 0;
}

KvWoven kv_woven(KvCodecId id, KvSide side, const KvGroup *group) {
    const RowCodes *row = &ROW_CODES[id];
    KvLayout layout = kv_layout(&KV_FORMATS[id], side, group);
    KvWoven woven = {.bits = row->bits,
                     .bias = row->bias,
                     .has_minima = row->has_minima,
                     .by_channel = layout.by_channel,
                     .block = row->block_bytes > 0 ? KV_WOVEN_BLOCK : layout.block,
                     .minima = layout.minima,
                     .codes = layout.codes};
    woven.n_blocks = group->head_dim / woven.block;
    if (row->block_bytes > 0) {
        woven.minima = woven.n_blocks * group->n_tokens * sizeof(uint16_t);
        woven.codes = woven.minima * (row->has_minima ? 2 : 1);
    }
    return woven;
}

/* A record as rows and woven, and which of them is to be written. */
typedef struct Weave {
    const RowCodes *row;
    KvWoven woven;
    KvLayout layout;
    const KvGroup *group;
    bool keys, to_rows;
    uint8_t *rows, *kept;
} Weave;

static void move(const Weave *w, uint8_t *row, uint8_t *kept, size_t n) {
    if (w->to_rows)
        memcpy(row, kept, n);
    else
        memcpy(kept, row, n);
}

/* Scales, or minima: number `index` of those that a block of GGML's begins with, or from `offset` of the record on. */
static void move_scales(const Weave *w, size_t index, size_t offset, size_t woven_offset) {
    size_t n_tokens = w->group->n_tokens, half = sizeof(uint16_t);
    if (w->woven.by_channel) {
        move(w, w->rows + offset, w->kept + woven_offset, w->group->head_dim * half);
        return;
    }
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t b = 0; b < w->woven.n_blocks; b++) {
            size_t at = w->row->block_bytes > 0 ? t * w->layout.row_bytes + b * w->row->block_bytes + index * half
                                                : offset + (t * w->woven.n_blocks + b) * half;
            move(w, w->rows + at, w->kept + woven_offset + (b * n_tokens + t) * half, half);
        }
}

static unsigned nibble(const uint8_t *packed, size_t i) {
    return packed[i / 2] >> i % 2 * 4 & 15u;
}

/* 32 codes of 4 bits: neighbours in a byte to elements 16 apart in a byte, or back. */
static void pair_codes(const uint8_t from[16], bool to_pairs, uint8_t to[16]) {
    for (size_t i = 0; i < 16; i++)
        if (to_pairs)
            to[i] = (uint8_t)((from[2 * i % 16] >> i / 8 * 4 & 15) | (from[(2 * i + 1) % 16] >> i / 8 * 4 & 15) << 4);
        else
            to[i] = (uint8_t)(nibble(from, i) | nibble(from, 16 + i) << 4);
}

/* The codes of a block of 32 elements of one token, in the form that is woven. */
static void move_block(const Weave *w, uint8_t *row, uint8_t *kept) {
    uint8_t codes[KV_WOVEN_BLOCK], pairs[KV_WOVEN_BLOCK], flip = w->row->bias & 0x80;
    size_t n = 4 * w->row->bits, unit = w->keys ? 4 : 1, step = w->keys ? 64 : 4;
    bool in_pairs = w->row->bits == 4 && w->row->block_bytes == 0;
    if (w->to_rows) {
        for (size_t i = 0; i < n / unit; i++)
            memcpy(codes + i * unit, kept + i * step, unit);
    } else {
        memcpy(codes, row, n);
        if (in_pairs)
            pair_codes(row, false, codes);
    }
    for (size_t i = 0; i < n; i++)
        codes[i] ^= flip;
    if (w->to_rows) {
        if (in_pairs)
            pair_codes(codes, true, pairs);
        memcpy(row, in_pairs ? pairs : codes, n);
    } else {
        for (size_t i = 0; i < n / unit; i++)
            memcpy(kept + i * step, codes + i * unit, unit);
    }
}

static void move_codes(const Weave *w) {
    size_t n_blocks = w->group->head_dim / KV_WOVEN_BLOCK, block_bytes = KV_WOVEN_BLOCK * w->row->bits / 8;
    size_t step = w->row->block_bytes > 0 ? w->row->block_bytes : block_bytes, together = w->keys ? 16 : 4;
    for (size_t t = 0; t < w->group->n_tokens; t++) {
        uint8_t *row = w->rows + w->layout.codes + w->row->codes_at + t * w->layout.row_bytes;
        uint8_t *kept = w->kept + w->woven.codes + t / together * together * n_blocks * block_bytes +
                        t % together * (w->keys ? 4 : 1);
        for (size_t b = 0; b < n_blocks; b++)
            move_block(w, row + b * step, kept + b * block_bytes * together);
    }
}

static void move_all(const Weave *w) {
    move_scales(w, 0, 0, 0);
    if (w->row->has_minima)
        move_scales(w, 1, w->layout.minima, w->woven.minima);
    move_codes(w);
}

static Weave weave_of(KvCodecId id, KvSide side, const KvGroup *group) {
    return (Weave){.row = &ROW_CODES[id],
                   .woven = kv_woven(id, side, group),
                   .layout = kv_layout(&KV_FORMATS[id], side, group),
                   .group = group,
                   .keys = side == KV_KEYS};
}

void kv_weave(KvCodecId id, KvSide side, const KvGroup *group, uint8_t *record, uint8_t *room) {
    if (!kv_is_woven(id, group->head_dim))
        return;
    Weave weave = weave_of(id, side, group);
    memcpy(room, record, weave.layout.size_bytes);
    weave.rows = room;
    weave.kept = record;
    move_all(&weave);
}

void kv_unweave(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *woven, uint8_t *record) {
    Weave weave = weave_of(id, side, group);
    memcpy(record, woven, weave.layout.size_bytes);
    if (!kv_is_woven(id, group->head_dim))
        return;
    weave.to_rows = true;
    weave.rows = record;
    weave.kept = (uint8_t *)woven; /* only read from */
    move_all(&weave);
}

void kv_decode_kept(KvCodecId id, KvSide side, const KvGroup *group, const uint8_t *kept, uint8_t *room, float *out) {
    kv_unweave(id, side, group, kept, room);
    kv_codec_decoder(kv_codec(id), SIMD_SCALAR)(side, group, room, 0, group->n_tokens, out);
}
