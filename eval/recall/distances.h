/* Recall at a distance, from a model and policies to an evaluation over the sequences of segments.h.
 *
 *     RecallRun run = {.task = {.distances = distances, .segment = 32, .n_samples = 50, .seed = 1}};
 *     int status = recall_run_open(&run, &session, n_ctx, &policies, &error);
 *     if (status == 0)
 *         status = evaluation_run(&run.evaluation, &error);
 *     if (recall_run_samples(&run) > 0) … recall_json(&run.evaluation, &run.task, path) …      // report.h
 *     recall_run_close(&run);
 */
#ifndef STOWKV_RECALL_DISTANCES_H
#define STOWKV_RECALL_DISTANCES_H

#include "eval/perplexity/evaluation.h"
#include "eval/recall/segments.h"
#include "kvcache/policy_options.h"
#include "session/session.h"

typedef struct RecallRun {
    RecallTask task;                          /* given, but for the tokens that it draws from */
    size_t n_batch;                           /* given: 0 is the default */
    const volatile sig_atomic_t *interrupted; /* given; may be NULL */
    RecallSequences sequences;
    Evaluation evaluation;
} RecallRun;

/* Contexts have at most n_ctx tokens, which hold the largest distance. ERROR_ARGUMENT for a policy whose sink may hold
 * the segment or that changes nothing at these distances, and for a vocabulary that is too small. */
int recall_run_open(RecallRun *run, Session *session, size_t n_ctx, const PolicyList *policies, Error *error);
void recall_run_close(RecallRun *run); /* closing twice is fine */

/* Samples of which every distance is through. */
size_t recall_run_samples(const RecallRun *run);

/* Tokens that a cache must hold for sequences of up to `longest`: those; or n_ctx, where a policy's tiers have room for
 * more than those: what is wrong with that is told by the sequences. */
size_t recall_n_ctx(const PolicyList *policies, size_t longest, size_t n_ctx);

#endif
