/* Numbers of distributions that experiments are made up of, from base/random.h: the same for the same state. */
#ifndef STOWKV_DRAWS_H
#define STOWKV_DRAWS_H

#include <stdint.h>

double draw_normal(uint64_t *random);       /* of mean 0 and variance 1 */
double draw_heavy_tailed(uint64_t *random); /* of Student's t with 3 degrees of freedom */

#endif
