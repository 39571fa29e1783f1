/* What rouge prints and writes as JSON. The names in the JSON are a contract: docs/json.md. */
#ifndef STOWKV_ROUGE_REPORT_H
#define STOWKV_ROUGE_REPORT_H

#include "eval/rouge/pairs.h"
#include "eval/rouge/run.h"

void rouge_pairs_print(const RougePairs *pairs, const RougeOptions *options, FILE *stream);
cJSON *rouge_pairs_json(const RougePairs *pairs, const RougeOptions *options);

/* Runs over the same samples; base: the one that differences are from, or n_runs where there are none. */
typedef struct RougeComparison {
    const RougeWork *work;
    const RougeData *data;
    const RougeRun *runs; /* (n_runs) */
    size_t n_runs, base;
    uint64_t seed; /* of the bootstrap */
    size_t n_resamples;
} RougeComparison;

void rouge_comparison_print(const RougeComparison *comparison, FILE *stream);
cJSON *rouge_comparison_json(const RougeComparison *comparison);

#endif
