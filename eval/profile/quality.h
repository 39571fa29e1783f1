/* What each policy of a profile costs in quality: perplexity of a text and divergence from the full cache over it, as
 * the program perplexity measures them, and ROUGE-L of what is generated from pieces of the text against what the full
 * cache generates from them, with the scores and the proof of the program rouge; and recall of random tokens, as the
 * program recall measures it. The text is a file's, or, without one,
 * what the model itself says behind the prompt: there its own probabilities are those of the text, so that divergence
 * means most and perplexity is no measure of the model.
 *
 *     QualityTask task = {.session = &session, .options = &options, .prompt = &prompt, .policies = &policies, …};
 *     cJSON *quality = NULL;
 *     if (quality_measure(&task, &quality, &error) < 0) …       // *quality may have a part of it all the same
 *     cJSON_Delete(quality);
 */
#ifndef STOWKV_PROFILE_QUALITY_H
#define STOWKV_PROFILE_QUALITY_H

#include "eval/perplexity/setup.h"
#include "kvcache/policy_options.h"
#include "session/session.h"

#include <cjson/cJSON.h>

#define QUALITY_DEFINITION PPL_LLAMACPP
#define QUALITY_CONTEXT    2048 /* tokens of a window, where the text and the context allow it */
#define QUALITY_TOKENS     8192 /* of the text, that are evaluated */
#define QUALITY_OWN_TOKENS 1024 /* of a text that the model says, with the prompt */
#define QUALITY_SEED       1    /* of that text, drawn at temperature 1 */

#define QUALITY_PIECES       8
#define QUALITY_PIECE_MAX    512 /* tokens of a piece, and its least where there are so many */
#define QUALITY_PIECE_MIN    128
#define QUALITY_PIECE_ANSWER 64 /* tokens that are generated from each */

#define QUALITY_SEGMENT        32 /* tokens that are to be recalled */
#define QUALITY_RECALL_SAMPLES 6  /* of each distance */

typedef struct QualityTask {
    Session *session; /* not owned; its context is replaced */
    const SessionOptions *options;
    const PplText *text;        /* no tokens: the model says one */
    const TokenList *prompt;    /* that such a text begins with */
    const PolicyList *policies; /* the first is the full cache */
    const volatile sig_atomic_t *interrupted;
} QualityTask;

/* An object with "text", "own" and "modes", each with the names that perplexity's report has, and "rouge" behind the
 * full cache. What is through of an interrupted or failed measurement is there; NULL where nothing is. */
int quality_measure(const QualityTask *task, cJSON **out, Error *error);

/* Recall at a few distances, as the program recall measures and reports it; the text plays no part. {"left_out": why}
 * where no distance fits the context, or a policy changes nothing at any of them. */
int quality_recall(const QualityTask *task, cJSON **out, Error *error);

#endif
