/* A benchmark drawn: tokens generated a second against depth, a line for each policy, as SVG. eval/plot.py draws the
 * same from the JSON, for documents; this is for the machines that are measured, which have the program and often
 * nothing else. */
#ifndef STOWKV_BENCH_CHART_H
#define STOWKV_BENCH_CHART_H

#include "eval/bench/report.h"

void bench_svg(const Bench *bench, FILE *stream);

#endif
