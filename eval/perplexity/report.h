/* Reports of an evaluation: a table for people, JSON and CSV for programs. */
#ifndef STOWKV_PERPLEXITY_REPORT_H
#define STOWKV_PERPLEXITY_REPORT_H

#include "eval/perplexity/evaluation.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* What stands beside every figure. */
typedef struct PerplexitySetup {
    const char *model_path, *text_path;
    PplSettings settings;
    size_t n_text_tokens;
    const char *bos; /* "replaced", "once" or "none" */
} PerplexitySetup;

void perplexity_print(const Evaluation *e, const PerplexitySetup *setup, FILE *stream);

/* The report of the last policy; where there are several, "modes" has one for each. NULL out of memory. */
cJSON *perplexity_json(const Evaluation *e, const PerplexitySetup *setup);

void perplexity_csv(const Evaluation *e, const PerplexitySetup *setup, FILE *stream);

#endif
