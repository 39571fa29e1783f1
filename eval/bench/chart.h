/* A benchmark drawn: tokens generated a second against depth, a line for each policy, as an SVG file that needs nothing
 * else. */
#ifndef STOWKV_BENCH_CHART_H
#define STOWKV_BENCH_CHART_H

#include "eval/bench/report.h"

void bench_svg(const Bench *bench, FILE *stream);

#endif
