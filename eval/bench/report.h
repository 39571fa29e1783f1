/* Reports of a benchmark: a table for people, JSON for programs; chart.h draws it. */
#ifndef STOWKV_BENCH_REPORT_H
#define STOWKV_BENCH_REPORT_H

#include "eval/bench/figures.h"
#include "eval/bench/run.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* One row of the table. */
typedef struct BenchRow {
    size_t depth, prefill_depth; /* tokens in the cache when the measurement began */
    BenchSummary decode, prefill;
    double read_bandwidth;   /* bytes a second that memory gave before the tokens were generated: the median */
    double bytes_per_token;  /* weights and cache, that a generated token reads */
    double bytes_per_second; /* at the median speed */
    double bandwidth_share;  /* of what memory gave in all; above 1 where caches hold the weights */
    const char *note;        /* NULL: none */
} BenchRow;

/* False where no repetition of this point is through. */
bool bench_row(const Bench *bench, const BenchMode *mode, size_t d, BenchRow *out);

/* Whether any point has a figure. */
bool bench_has_figures(const Bench *bench);

void bench_print(const Bench *bench, FILE *stream);
cJSON *bench_json(const Bench *bench); /* NULL out of memory */

#endif
