/* Reports of needles: tables for people, JSON and CSV for programs. Points of which no answer is through are left out.
 * The names in the JSON are a contract: docs/json.md. */
#ifndef STOWKV_RECALL_NEEDLE_REPORT_H
#define STOWKV_RECALL_NEEDLE_REPORT_H

#include "eval/recall/needle_run.h"

typedef struct NeedleResult {
    const NeedleTask *task;
    const NeedleMode *modes; /* (n_modes) */
    size_t n_modes;
} NeedleResult;

void needle_print(const NeedleResult *result, FILE *stream);
void needle_csv(const NeedleResult *result, FILE *stream);
cJSON *needle_json(const NeedleResult *result); /* NULL where memory runs out */

#endif
