/* Loads codes from bit planes into registers. Inlined with a constant width, the functions are left with that width's
 * instructions. To be included by sources of stowkv_simd_library() only. */
#ifndef STOWKV_SIMD_BIT_PLANES_H
#define STOWKV_SIMD_BIT_PLANES_H

#include "base/bit_planes.h"
#include "base/simd/integers.h"

INLINE VecInt plane_step(const uint8_t *plane, size_t bits, size_t step) {
    VecInt piece = vec_int_load(plane + step % bits * PIECE_BYTES);
    if (bits == 8)
        return piece;
    return vec_int_and(vec_int_shift_right(piece, (int)(step / bits * bits)), vec_int_set1((int32_t)plane_mask(bits)));
}

/* The codes of one step, four in each of VEC_LANES lanes, from the lane that `pack` points to. No loop over planes:
 * callers unroll their loops over steps, and GCC would not unroll one in here. */
INLINE VecInt planes_step(const uint8_t *pack, size_t bits, size_t step) {
    size_t first = widest_plane(bits), rest = bits - first;
    VecInt codes = plane_step(pack, first, step);
    if (rest & 2)
        codes = vec_int_or(codes, vec_int_shift_left(plane_step(pack + planes_bytes(first), 2, step), (int)first));
    if (rest & 1)
        codes =
            vec_int_or(codes, vec_int_shift_left(plane_step(pack + planes_bytes(bits - 1), 1, step), (int)bits - 1));
    return codes;
}

#endif
