/* Results of quant_bench_run(): a table for people, JSON and CSV for programs. */
#ifndef STOWKV_QUANT_REPORT_H
#define STOWKV_QUANT_REPORT_H

#include "eval/kv_quant/bench.h"

#include <cjson/cJSON.h>
#include <stdio.h>

void quant_bench_print(const QuantBench *bench, FILE *stream);
cJSON *quant_bench_json(const QuantBench *bench); /* NULL out of memory */
void quant_bench_csv(const QuantBench *bench, FILE *stream);

/* ERROR_FORMAT where a variant has computed something else than the reference. */
int quant_bench_verdict(const QuantBench *bench, Error *error);

#endif
