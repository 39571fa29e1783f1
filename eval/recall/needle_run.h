/* Needles of all lengths and positions under several cache policies: greedy answers, and whether the number is in them.
 *
 *     NeedleTask task = {.frame = {&session, chat, &haystack, 10, 128}, .options = &options, .lengths = lengths, …};
 *     NeedleMode mode;
 *     if (needle_check_task(&task, &policies, &error) < 0) …         // before any runs
 *     if (needle_mode_open(&task, &policy, &mode, &error) < 0 || needle_run(&task, &mode, 1, &error) < 0) …
 *     needle_point(&task, &mode, length_index, position)->right …
 *     needle_mode_free(&mode);
 */
#ifndef STOWKV_RECALL_NEEDLE_RUN_H
#define STOWKV_RECALL_NEEDLE_RUN_H

#include "eval/recall/needle.h"
#include "eval/size_list.h"
#include "session/generation.h"
#include "session/run_report.h"

typedef struct NeedleTask {
    NeedleFrame frame;
    Session *session;    /* not owned; its context is replaced */
    PrefixReuse *shared; /* not owned; keeps what needles have in common, NULL: all of each prompt is read */
    const SessionOptions *options;
    SizeList lengths;
    size_t n_ctx;     /* of a context, for the longest of them */
    size_t n_samples; /* of each length and position */
    uint64_t seed;
    const volatile sig_atomic_t *interrupted;         /* stop when it is set; may be NULL */
    size_t n_done;                                    /* lengths of the answers that are through, summed */
    void (*on_answer)(const struct NeedleTask *task); /* after each of them; may be NULL */
    void *user;                                       /* for it */
} NeedleTask;

/* Answers of one length and position. */
typedef struct NeedlePoint {
    size_t n, right;
} NeedlePoint;

typedef struct NeedleMode {
    KvPolicy policy;
    NeedlePoint *points; /* (lengths, positions) */
    KvLedger ledger;     /* of the last answer, counters summed over all */
    cJSON *kernels;
} NeedleMode;

/* ERROR_ARGUMENT where a length has no room for a question, or a policy that is not the full one changes nothing in the
 * longest prompts. */
int needle_check_task(NeedleTask *task, const PolicyList *policies, Error *error);

int needle_mode_open(const NeedleTask *task, const KvPolicy *policy, NeedleMode *mode, Error *error);
void needle_mode_free(NeedleMode *mode); /* freeing twice is fine */

/* After ERROR_INTERRUPTED the answers that are through are counted. */
int needle_run(NeedleTask *task, NeedleMode *modes, size_t n_modes, Error *error);

const NeedlePoint *needle_point(const NeedleTask *task, const NeedleMode *mode, size_t length_index, size_t position);

/* A needle's prompt; its first n_shared tokens are those of another needle's at this place, too. */
typedef struct NeedlePrompt {
    TokenList tokens;
    size_t n_shared;
} NeedlePrompt;

/* Answers a prompt with an empty cache, greedily; *right: `number` is in the text. Nothing behind it is generated, for
 * that cannot change the answer. What is shared is read in the same batches as the whole prompt would be, or taken from
 * task->shared, whose bits are the same. */
int needle_answer(const NeedleTask *task, Sampler *sampler, const NeedlePrompt *prompt, const char *number, bool *right,
                  Error *error);

#endif
