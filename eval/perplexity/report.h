/* Reports of an evaluation: a table for people, JSON and CSV for programs. */
#ifndef STOWKV_PERPLEXITY_REPORT_H
#define STOWKV_PERPLEXITY_REPORT_H

#include "eval/perplexity/setup.h"

#include <cjson/cJSON.h>
#include <stdio.h>

void perplexity_print(const Evaluation *e, const PplSetup *setup, FILE *stream);

/* The report of the last policy; where there are several, "modes" has one for each. NULL out of memory. */
cJSON *perplexity_mode_json(const Evaluation *e, const PplSetup *setup, const EvalMode *mode); /* of one policy */
cJSON *perplexity_json(const Evaluation *e, const PplSetup *setup);

void perplexity_csv(const Evaluation *e, const PplSetup *setup, FILE *stream);

#endif
