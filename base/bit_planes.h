/* Codes of 1 to 8 bits as bit planes, so that a load, a shift and a mask give what integer dot products multiply.
 * Packed weights (model/packed_matrix.h) and the woven records of the cache (kvcache/codec/weave.h) are made of them.
 *
 * A pack is 16 lanes of 32 codes each: 8 steps of 4. The binary digits of the width are its planes, the widest first:
 * codes of 5 bits are a plane of their 4 low bits and one of the fifth, codes of 7 bits planes of 4, 2 and 1. A plane
 * of b bits is b pieces of 64 bytes: step s is in piece s % b, in bits [s / b * b, s / b * b + b) of each byte; byte 4
 * l + c of a piece is code c of lane l. */
#ifndef STOWKV_BIT_PLANES_H
#define STOWKV_BIT_PLANES_H

#include "base/constant_inline.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PLANE_STEPS 8
#define PLANE_LANES 16
#define PIECE_BYTES 64 /* a step's codes in 8 bits */
#define LANE_CODES  32

/* Bytes of a pack of codes of `bits` bits. */
CONSTANT_INLINE size_t planes_bytes(size_t bits) {
    return bits * PIECE_BYTES;
}

/* Bits of the widest plane: the highest binary digit of 1 to 8. */
CONSTANT_INLINE size_t widest_plane(size_t bits) {
    return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/* The same mask for each of four bytes. */
CONSTANT_INLINE uint32_t plane_mask(size_t bits) {
    return ((1u << bits) - 1) * 0x01010101u;
}

/* Writes the codes of one lane, each below 2^bits, into a pack. */
static inline void planes_put(size_t bits, const uint8_t codes[LANE_CODES], size_t lane, uint8_t *pack) {
    uint32_t steps[PLANE_STEPS];
    memcpy(steps, codes, sizeof steps);
    for (size_t shift = 0, plane; shift < bits; shift += plane) {
        plane = widest_plane(bits - shift);
        for (size_t piece = 0; piece < plane; piece++, pack += PIECE_BYTES) {
            uint32_t word = 0;
            for (size_t s = piece; s < PLANE_STEPS; s += plane)
                word |= (steps[s] >> shift & plane_mask(plane)) << s / plane * plane;
            memcpy(pack + lane * sizeof word, &word, sizeof word);
        }
    }
}

/* Reads the codes of one lane of a pack. */
static inline void planes_get(size_t bits, const uint8_t *pack, size_t lane, uint8_t codes[LANE_CODES]) {
    uint32_t steps[PLANE_STEPS] = {0};
    for (size_t shift = 0, plane; shift < bits; shift += plane) {
        plane = widest_plane(bits - shift);
        for (size_t piece = 0; piece < plane; piece++, pack += PIECE_BYTES) {
            uint32_t word;
            memcpy(&word, pack + lane * sizeof word, sizeof word);
            for (size_t s = piece; s < PLANE_STEPS; s += plane)
                steps[s] |= (word >> s / plane * plane & plane_mask(plane)) << shift;
        }
    }
    memcpy(codes, steps, sizeof steps);
}

#endif
