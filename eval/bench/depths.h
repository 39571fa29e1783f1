/* The depths of a benchmark: parsed from "0,2048,8192", or the default ones that fit, and checked to leave room for
 * what is measured at each.
 *
 *     SizeList depths;
 *     if (bench_depths_parse("0,2048", 512 + 64, &depths, &error) < 0) …
 *     bench_depths_default(8192, 512 + 64, &depths);                // 0, 2048, 7616
 */
#ifndef STOWKV_BENCH_DEPTHS_H
#define STOWKV_BENCH_DEPTHS_H

#include "eval/size_list.h"

/* Depths ascend by at least n_measured, the tokens that are measured at each: ERROR_USAGE otherwise, and for what is no
 * list of numbers, with the character. */
int bench_depths_parse(const char *text, size_t n_measured, SizeList *out, Error *error);

/* 0, 2048 and 8192; in a shorter context the last depth from which on it still has n_measured tokens. */
void bench_depths_default(size_t n_ctx, size_t n_measured, SizeList *out);

#endif
