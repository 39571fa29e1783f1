/* Weaving: what both directions move is described once; see weave.h. */
#include "kvcache/codec/weave.h"

#include "base/block_codes.h"
#include "kvcache/codec/encode.h"

#define TOKENS  KV_WOVEN_TOKENS
#define BLOCK   KV_WOVEN_BLOCK
#define VECTORS 8

#define FIFTH_BYTES (BLOCK / 8) /* of fifth bits in a row of GGML's */

/* How a codec's rows hold what is woven. */
typedef struct RowCodes {
    size_t bits;
    int bias, factor;
    bool has_minima;
    uint8_t flip;                 /* bits that are turned over */
    size_t block_bytes, codes_at; /* GGML's blocks: their bytes, and where codes begin, the fifth bits in front */
} RowCodes;

static const RowCodes ROW_CODES[KV_CODEC_COUNT] = {
    [KV_INT8] = {.bits = 8, .bias = 128, .flip = 0x80},
    [KV_INT8G] = {.bits = 8, .has_minima = true},
    [KV_Q8_0] = {.bits = 8, .bias = 128, .flip = 0x80, .block_bytes = sizeof(BlockQ8_0), .codes_at = 2},
    [KV_Q5_1] = {.bits = 5, .has_minima = true, .block_bytes = sizeof(BlockQ5_1), .codes_at = 4},
    [KV_Q5_0] = {.bits = 5, .bias = 16, .block_bytes = sizeof(BlockQ5_0), .codes_at = 2},
    [KV_INT4] = {.bits = 4, .has_minima = true},
    [KV_Q4_1] = {.bits = 4, .has_minima = true, .block_bytes = sizeof(BlockQ4_1), .codes_at = 4},
    [KV_Q4_0] = {.bits = 4, .bias = 8, .block_bytes = sizeof(BlockQ4_0), .codes_at = 2},
    [KV_INT2] = {.bits = 2, .has_minima = true},
    [KV_BINARY] = {.bits = 1, .bias = 1, .factor = 2, .flip = 1}, /* 2 * 1 - 1 or 2 * 0 - 1 */
};

bool kv_is_woven(KvCodecId id, size_t head_dim) {
    return ROW_CODES[id].bits > 0 && head_dim % BLOCK == 0;
}

KvWoven kv_woven(KvCodecId id, KvSide side, const KvGroup *group) {
    const RowCodes *row = &ROW_CODES[id];
    KvLayout layout = kv_layout(&KV_FORMATS[id], side, group);
    KvWoven woven = {.bits = row->bits,
                     .bias = row->bias,
                     .factor = row->factor > 0 ? row->factor : 1,
                     .has_minima = row->has_minima,
                     .by_channel = layout.by_channel,
                     .block = row->block_bytes > 0 ? BLOCK : layout.block,
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

/* ---- Scales */

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

/* ---- Codes */

/* Where a row has the codes of a block, and their fifth bits. */
static uint8_t *block_of(const Weave *w, size_t token, size_t block) {
    size_t bytes = w->row->block_bytes > 0 ? w->row->block_bytes : BLOCK * w->row->bits / 8;
    return w->rows + w->layout.codes + token * w->layout.row_bytes + block * bytes;
}

static void load_row(const RowCodes *row, const uint8_t *from, uint8_t codes[BLOCK]) {
    size_t bits = row->bits;
    if (bits == 8) {
        memcpy(codes, from + row->codes_at, BLOCK);
    } else if (row->block_bytes > 0) {
        from += row->codes_at;
        unpack_nibbles(bits == 5 ? from + FIFTH_BYTES : from, codes);
        if (bits == 5)
            add_fifth_bits(from, codes);
    } else {
        for (size_t i = 0; i < BLOCK; i++)
            codes[i] = (uint8_t)(from[i * bits / 8] >> i * bits % 8 & ((1u << bits) - 1));
    }
    for (size_t i = 0; i < BLOCK; i++)
        codes[i] ^= row->flip;
}

static void store_row(const RowCodes *row, const uint8_t codes[BLOCK], uint8_t *to) {
    uint8_t flipped[BLOCK];
    for (size_t i = 0; i < BLOCK; i++)
        flipped[i] = codes[i] ^ row->flip;
    if (row->bits == 8) {
        memcpy(to + row->codes_at, flipped, BLOCK);
    } else if (row->block_bytes > 0) {
        pack_block(flipped, (int)row->bits, to + row->codes_at);
    } else {
        pack_codes(flipped, BLOCK, (int)row->bits, to);
    }
}

/* n of the 8 vectors' bits, from bit `first` of their codes on, in n vectors, or back. */
static void pack_vectors(uint8_t (*vectors)[64], size_t n, size_t first, uint8_t (*packed)[64]) {
    unsigned mask = (1u << n) - 1;
    for (size_t v = 0; v < VECTORS; v++)
        for (size_t i = 0; i < 64; i++) {
            uint8_t bits = (uint8_t)((vectors[v][i] >> first & mask) << v / n * n);
            packed[v % n][i] = v < n ? bits : packed[v % n][i] | bits;
        }
}

static void unpack_vectors(uint8_t (*packed)[64], size_t n, size_t first, uint8_t (*vectors)[64]) {
    unsigned mask = (1u << n) - 1;
    for (size_t v = 0; v < VECTORS; v++)
        for (size_t i = 0; i < 64; i++) {
            uint8_t bits = (uint8_t)((packed[v % n][i] >> v / n * n & mask) << first);
            vectors[v][i] = first == 0 ? bits : vectors[v][i] | bits;
        }
}

/* The place of a code in a tile's vectors. */
static uint8_t *place_of(bool keys, uint8_t (*vectors)[64], size_t token, size_t element) {
    return keys ? &vectors[element / 4][token * 4 + element % 4]
                : &vectors[token / 4 * 2 + element / 16][element % 16 * 4 + token % 4];
}

static uint8_t (*tile_of(const Weave *w, size_t tile, size_t block))[64] {
    size_t n_blocks = w->group->head_dim / BLOCK;
    return (void *)(w->kept + w->woven.codes + (tile * n_blocks + block) * KV_WOVEN_TILE(w->row->bits));
}

static void weave_tile(const Weave *w, size_t tile, size_t block) {
    uint8_t vectors[VECTORS][64], codes[BLOCK], (*packed)[64] = tile_of(w, tile, block);
    for (size_t t = 0; t < TOKENS; t++) {
        load_row(w->row, block_of(w, tile * TOKENS + t, block), codes);
        for (size_t i = 0; i < BLOCK; i++)
            *place_of(w->keys, vectors, t, i) = codes[i];
    }
    pack_vectors(vectors, kv_woven_low_bits(w->row->bits), 0, packed);
    if (w->row->bits == 5)
        pack_vectors(vectors, 1, 4, packed + 4);
}

static void unweave_tile(const Weave *w, size_t tile, size_t block) {
    uint8_t vectors[VECTORS][64], codes[BLOCK], (*packed)[64] = tile_of(w, tile, block);
    unpack_vectors(packed, kv_woven_low_bits(w->row->bits), 0, vectors);
    if (w->row->bits == 5)
        unpack_vectors(packed + 4, 1, 4, vectors);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < BLOCK; i++)
            codes[i] = *place_of(w->keys, vectors, t, i);
        store_row(w->row, codes, block_of(w, tile * TOKENS + t, block));
    }
}

static void move_all(const Weave *w) {
    move_scales(w, 0, 0, 0);
    if (w->row->has_minima)
        move_scales(w, 1, w->layout.minima, w->woven.minima);
    for (size_t tile = 0; tile < w->group->n_tokens / TOKENS; tile++)
        for (size_t block = 0; block < w->group->head_dim / BLOCK; block++)
            if (w->to_rows)
                unweave_tile(w, tile, block);
            else
                weave_tile(w, tile, block);
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
