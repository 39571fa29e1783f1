/* Decoding of tiles, compiled once for each instruction set; see decoded_tile.h. */
#include "attention/decoded_tile.h"

#include "attention/code_products.h"
#include "attention/stored_rows.h"

/* Notes where tokens [at, at + n) come from: addresses from `source` on, `step` apart. False where any came from
 * elsewhere. */
static bool note_sources(DecodedTile *tile, size_t at, size_t n, uintptr_t source, size_t step) {
    uintptr_t differs = 0;
    for (size_t t = 0; t < n; t++) {
        differs |= tile->sources[at + t] ^ (source + t * step);
        tile->sources[at + t] = source + t * step;
    }
    return differs == 0;
}

/* Decodes the part of a piece that lies in one group, unless it is there. */
static bool decode_part(DecodedTile *tile, const KvSpan *span, size_t first, size_t at, size_t n, size_t head_dim) {
    const KvEncoding *keys = &span->side[KV_KEYS];
    size_t step = is_half(keys->codec) ? head_dim * sizeof(uint16_t) : 1; /* a record has more bytes than tokens */
    uintptr_t source = (uintptr_t)record_of(span, KV_KEYS, first) + first % keys->group.n_tokens * step;
    if (note_sources(tile, at, n, source, step))
        return false;
    if (!is_coded(span, KV_KEYS))
        decode_stored(span, KV_KEYS, first, n, tile->keys + at * head_dim);
    if (!is_coded(span, KV_VALUES))
        decode_stored(span, KV_VALUES, first, n, tile->values + at * head_dim);
    return true;
}

typedef float Four __attribute__((vector_size(16)));

static Four load_four(const float *from) {
    Four four;
    memcpy(&four, from, sizeof four);
    return four;
}

/* Four rows, head_dim apart, become four columns, VEC_LANES apart. */
static void transpose_four(const float *rows, size_t head_dim, float *columns) {
    Four a = load_four(rows), b = load_four(rows + head_dim);
    Four c = load_four(rows + 2 * head_dim), d = load_four(rows + 3 * head_dim);
    Four ab_front = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_back = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    Four cd_front = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_back = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const Four out[4] = {__builtin_shufflevector(ab_front, cd_front, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_front, cd_front, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_back, cd_back, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_back, cd_back, 2, 3, 6, 7)};
    for (size_t i = 0; i < 4; i++)
        memcpy(columns + i * VEC_LANES, &out[i], sizeof out[i]);
}

/* keys (VEC_LANES, head_dim) to panel (head_dim, VEC_LANES). */
static void transpose_keys(const float *keys, size_t head_dim, float *panel) {
    size_t whole = head_dim / 4 * 4;
    for (size_t t = 0; t < VEC_LANES; t += 4)
        for (size_t d = 0; d < whole; d += 4)
            transpose_four(keys + t * head_dim + d, head_dim, panel + d * VEC_LANES + t);
    for (size_t d = whole; d < head_dim; d++)
        for (size_t t = 0; t < VEC_LANES; t++)
            panel[d * VEC_LANES + t] = keys[t * head_dim + d];
}

void SIMD_NAME(decode_tile)(DecodedTile *tile, const TilePiece *pieces, size_t n_pieces, size_t head_dim) {
    size_t begin = TILE_TOKENS, end = 0; /* of what was decoded now */
    for (size_t p = 0; p < n_pieces; p++) {
        const TilePiece *piece = &pieces[p];
        if (is_coded(piece->span, KV_KEYS) && is_coded(piece->span, KV_VALUES))
            continue;
        for (size_t done = 0, n; done < piece->n; done += n) {
            n = rest_of_group(piece->span, piece->first + done, piece->n - done);
            if (!decode_part(tile, piece->span, piece->first + done, piece->at + done, n, head_dim))
                continue;
            begin = piece->at + done < begin ? piece->at + done : begin;
            end = piece->at + done + n;
        }
    }
    for (size_t t = begin / VEC_LANES * VEC_LANES; t < end; t += VEC_LANES)
        transpose_keys(tile->keys + t * head_dim, head_dim, tile->panels + t * head_dim);
}
