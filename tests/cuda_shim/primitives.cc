/* Matrix products of tests/cuda_shim/primitives.h: what kernels on the host take longest for. Its operands were in
 * lanes' registers, so sanitizers have nothing to see here, and do not. */
#include "tests/cuda_shim/primitives.h"

namespace cuda_shim {

void multiply(const Fragments *in, Accumulator *out) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < n_lanes; lane++) {
        int g = lane / 4, j = lane % 4;
        for (int r = 0; r < 4; r++) {
            int row = g + r % 2 * 8, column = 2 * j + r / 2 * 8;
            a[row][column] = half_to_float((uint16_t)in[lane].a[r]);
            a[row][column + 1] = half_to_float((uint16_t)(in[lane].a[r] >> 16));
        }
        for (int r = 0; r < 2; r++) {
            b[2 * j + 8 * r][g] = half_to_float((uint16_t)in[lane].b[r]);
            b[2 * j + 8 * r + 1][g] = half_to_float((uint16_t)(in[lane].b[r] >> 16));
        }
    }
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++)
            d[row][column] = 0;
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                d[row][column] += a[row][k] * b[k][column];
    }
    for (int lane = 0; lane < n_lanes; lane++)
        for (int i = 0; i < 4; i++)
            out[lane].d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

} // namespace cuda_shim
