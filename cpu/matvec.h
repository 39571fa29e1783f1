/* Products with one token. */
#ifndef STOWKV_MATVEC_H
#define STOWKV_MATVEC_H

#include "base/simd/levels.h"
#include "model/packed_matrix.h"

/* One token by panels [panel_begin, panel_end): y[row] = w[row] . x. `x` is the strip of the token for coded types
 * (activation_strips.h), else the token in F32. */
typedef void Matvec(const PackedMatrix *w, const void *x, size_t panel_begin, size_t panel_end, float *y); // (n_rows)

SIMD_DECLARE(Matvec, matvec, );

#endif
