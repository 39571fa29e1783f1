/* Decoding of tiles, compiled once for each instruction set; see decoded_tile.h. */
#include "attention/decoded_tile.h"

#include "attention/code_products.h"
#include "attention/stored_tokens.h"

/* Notes that slots [at, at + n) come from addresses `source`, source + step, … False where any came from elsewhere. */
static bool note_sources(DecodedTile *decoded, size_t at, size_t n, uintptr_t source, size_t step) {
    uintptr_t differs = 0;
    for (size_t t = 0; t < n; t++) {
        differs |= decoded->sources[at + t] ^ (source + t * step);
        decoded->sources[at + t] = source + t * step;
    }
    return differs == 0;
}

/* Decodes a piece that lies in one group; false where it is there already. */
static bool decode_piece(DecodedTile *decoded, const TilePiece *piece, size_t head_dim) {
    const KvSpan *span = piece->span;
    const KvEncoding *keys = &span->side[KV_KEYS];
    /* A token in a record has no address of its own: the record's plus its index is unique, as index < record_bytes. */
    size_t step = keys->codec == KV_F16 ? head_dim * sizeof(uint16_t) : 1;
    uintptr_t record = (uintptr_t)record_of(span, KV_KEYS, piece->first);
    if (note_sources(decoded, piece->at, piece->n, record + piece->first % keys->group.n_tokens * step, step))
        return false;
    if (!is_coded(span, KV_KEYS))
        decode_stored(span, KV_KEYS, piece->first, piece->n, decoded->keys + piece->at * head_dim);
    if (!is_coded(span, KV_VALUES))
        decode_stored(span, KV_VALUES, piece->first, piece->n, decoded->values + piece->at * head_dim);
    return true;
}

typedef float Four __attribute__((vector_size(16)));

static Four load_four(const float *from) {
    Four four;
    memcpy(&four, from, sizeof four);
    return four;
}

/* Four elements of four keys, head_dim apart, become four lanes of four vectors. */
static void transpose_four(const float *keys, size_t head_dim, float *panel) {
    Four a = load_four(keys), b = load_four(keys + head_dim);
    Four c = load_four(keys + 2 * head_dim), d = load_four(keys + 3 * head_dim);
    Four ab_front = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_back = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    Four cd_front = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_back = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const Four out[4] = {__builtin_shufflevector(ab_front, cd_front, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_front, cd_front, 2, 3, 6, 7),
                         __builtin_shufflevector(ab_back, cd_back, 0, 1, 4, 5),
                         __builtin_shufflevector(ab_back, cd_back, 2, 3, 6, 7)};
    for (size_t i = 0; i < 4; i++)
        memcpy(panel + i * VEC_LANES, &out[i], sizeof out[i]);
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

void SIMD_NAME(decode_tile)(DecodedTile *decoded, const Tile *tile, size_t head_dim) {
    size_t begin = TILE_TOKENS, end = 0; /* of what was decoded now */
    for (size_t p = 0; p < tile->n_pieces; p++) {
        const TilePiece *piece = &tile->pieces[p];
        if (is_coded(piece->span, KV_KEYS) && is_coded(piece->span, KV_VALUES))
            continue;
        for (size_t done = 0, n; done < piece->n; done += n) {
            n = rest_of_group(piece->span, piece->first + done, piece->n - done);
            TilePiece part = {piece->span, piece->first + done, piece->at + done, n};
            if (!decode_piece(decoded, &part, head_dim))
                continue;
            begin = part.at < begin ? part.at : begin;
            end = part.at + n;
        }
    }
    for (size_t t = begin / VEC_LANES * VEC_LANES; t < end; t += VEC_LANES)
        transpose_keys(decoded->keys + t * head_dim, head_dim, decoded->panels + t * head_dim);
}
