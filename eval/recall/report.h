/* Reports of recall at a distance: a table for people, JSON and CSV for programs. The names in the JSON are a contract:
 * docs/json.md. */
#ifndef STOWKV_RECALL_REPORT_H
#define STOWKV_RECALL_REPORT_H

#include "eval/perplexity/evaluation.h"
#include "eval/recall/segments.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* One policy at one distance. */
typedef struct RecallPoint {
    size_t distance, n;       /* samples that are through */
    MeanError log_likelihood; /* of a scored token, in nats: mean over samples of the mean over tokens */
    MeanError right;          /* the share of scored tokens that were the most likely */
    MeanError less_full;      /* log_likelihood less that of the first policy, sample by sample */
} RecallPoint;

/* `e` has run over the task's sequences, or over the first of them. */
int recall_point(const Evaluation *e, const RecallTask *task, size_t mode, size_t distance_index, RecallPoint *out,
                 Error *error);

int recall_print(const Evaluation *e, const RecallTask *task, FILE *stream, Error *error);
int recall_csv(const Evaluation *e, const RecallTask *task, FILE *stream, Error *error);

/* NULL where memory runs out. */
cJSON *recall_json(const Evaluation *e, const RecallTask *task, const char *model_path);

#endif
