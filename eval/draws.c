/* See draws.h. */
#include "eval/draws.h"

#include "base/random.h"

#include <math.h>

double draw_normal(uint64_t *random) { /* Box & Muller 1958 */
    double radius = sqrt(-2 * log(1 - random_uniform(random)));
    return radius * cos(2 * M_PI * random_uniform(random));
}

double draw_heavy_tailed(uint64_t *random) {
    double squares = 0;
    for (int i = 0; i < 3; i++) {
        double x = draw_normal(random);
        squares += x * x;
    }
    return draw_normal(random) / sqrt(squares / 3);
}
