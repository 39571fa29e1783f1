/* The loops of query_moments.c, compiled once for each instruction set. */
#ifndef STOWKV_CODEC_MOMENTS_H
#define STOWKV_CODEC_MOMENTS_H

#include "base/simd/levels.h"

#include <stdbool.h>
#include <stddef.h>

#define KV_MOMENTS_TILE 16

/* Adds q q^T of each row, one row after the other, to the lower triangle in tiles. */
typedef void KvMomentsAdd(float *moments, size_t n_tiles,
                          const float *rows, // (n_rows, n_tiles * KV_MOMENTS_TILE)
                          size_t n_rows);

/* In place, of the symmetric positive definite A = U D U^T, whose lower triangle is read: row k becomes U[0..k-1, k].
 * False where a pivot is not positive and finite. */
typedef bool KvTriangle(float *square, // (n, n)
                        size_t n);

SIMD_DECLARE(KvMomentsAdd, kv_moments_add_rows, ); /* moments.c */
SIMD_DECLARE(KvTriangle, kv_unit_triangle, );

#endif
